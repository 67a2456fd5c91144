"""What the papers of the field's other decoders claim, in the settings that they publish, and whether it holds here.

Speed is claimed in several ways; here it is counted in forwards. A cache saves time, see `benchmarks/caches.py`.
"""

from lrd_jax.research.reproduce.claims import Test, better, free, judged
from lrd_jax.research.reproduce.decoders import BASELINE
from lrd_jax.research.reproduce.folder import Setting, Shown


def show(setting: Setting) -> Shown | None:
    """Every claim of the field that the cells speak to."""
    return judged(FIELD, setting)


def _kept(decoder: str, *caches: str) -> Test:
    """Caches lose nothing."""
    return free(*((f"{decoder}, blocks of 32, {cache}", f"{decoder}, blocks of 32, no cache") for cache in caches))


FIELD: dict[str, Test] = {
    "Fast-dLLM: a threshold loses little (2505.22618)": free(("threshold 0.9", BASELINE), fewer=2),
    "Fast-dLLM: so do its caches": _kept("threshold 0.9", "prefix cache", "dual cache"),
    "EB-Sampler: 2 to 3 times fewer forwards, no loss (2505.24857)": free(("entropy bound 0.1", BASELINE), fewer=2),
    "KLASS: up to 2.78x, and better than greedy (2511.05664)": better(("KLASS, else 1 a step", BASELINE)),
    "DUS: better than confidence at as many forwards (2506.19037)": better(
        ("DUS, blocks of 16", "plain, 4 a step"), ("DUS", "plain, 8 a step")
    ),
    "WINO: 6 times fewer forwards, and better by 2.6 points (2507.18578)": better(
        ("WINO, threshold 0.6", BASELINE), ("WINO, threshold 0.9", BASELINE), least=0.026
    ),
    "ReMix: 2 to 8 times fewer forwards, no loss (2602.22868)": free(
        ("ReMix, threshold 0.6", BASELINE), ("ReMix, threshold 0.9", BASELINE), fewer=2
    ),
    "Prophet: up to 3.4 times fewer forwards, no loss (2508.19982)": free(
        *((f"Prophet, answer from {place} on, 1 a step", BASELINE) for place in (0, 8)), fewer=2
    ),
    "DAEDAL: as good as the best fixed canvas (2508.00819)": free(("DAEDAL, threshold 0.9", "threshold 0.9")),
    "dLLM-Cache: no loss (2506.06295)": _kept("1 a step", "dLLM-Cache"),
    "Sparse-dLLM: comparable (2508.02558)": _kept("1 a step", "Sparse-dLLM"),
    "dKV-Cache-Decode: almost none (2505.15781)": _kept("1 a step", "dKV-Cache"),
}
