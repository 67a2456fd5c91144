"""The decoders that `lrd-jax eval-tiny` compares, as data: a name, and the config for a canvas of G positions."""

from collections.abc import Callable

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.region import DualCache, PrefixCache
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.decoding.parts.stop import Stop

Decoders = dict[str, Callable[[int], DecodeConfig]]


def plain(**changes) -> Callable[[int], DecodeConfig]:
    """Hard masks, the surest tokens of every forward."""
    return lambda G: DecodeConfig.plain(G, **changes)


def fast(threshold: float, **changes) -> Callable[[int], DecodeConfig]:
    """Fast-dLLM's parallel commits."""
    return lambda G: DecodeConfig.fast(G, threshold=threshold, **changes)


def lrd(*, per_step: int = 1, threshold: float | None = None, **changes) -> Callable[[int], DecodeConfig]:
    """The paper's phases with one part exchanged for another; its stop is unguarded unless `stop` says otherwise."""
    return lambda G: DecodeConfig.paper(G, commit=LowestEntropy(per_step, threshold), **changes)


GUARD = Stop(max_entropy=0.2)

TABLE: Decoders = {
    "plain, 1 a step": plain(),
    "plain, 1 a step, end-of-text stop": plain(end_of_text=True),
    "plain, 2 a step": plain(per_step=2),
    "plain, 4 a step": plain(per_step=4),
    "plain, 4 a step, end-of-text stop": plain(per_step=4, end_of_text=True),
    "plain, 8 a step": plain(per_step=8),
    "plain, 8 a step, end-of-text stop": plain(per_step=8, end_of_text=True),
    "threshold 0.9": fast(0.9),
    "threshold 0.9, end-of-text stop": fast(0.9, end_of_text=True),
    "paper (LRD, unguarded stop)": lambda G: DecodeConfig.paper(G),
    "LRD, no stop": lrd(stop=None),
    "LRD, guarded stop": lrd(stop=GUARD),
    "LRD, guarded stop, end-of-text stop": lrd(stop=GUARD, end_of_text=True),
    "LRD, threshold 0.9 commits, guarded stop": lrd(threshold=0.9, stop=GUARD),
    "lrd (shipped)": lambda G: DecodeConfig.lrd(G),
}

SCAN: Decoders = {
    # How the divergence is measured, and how small it must be.
    **{
        f"stop {reduce} over {scope}, tau {tau:g}": lrd(stop=Stop(tau), divergence=Divergence(reduce, scope))
        for reduce in ("mean", "sum", "max")
        for scope in ("block", "masked")
        for tau in (0.1, 0.001)
    },
    # What else the stop asks for.
    **{f"guard: entropy < {h:g}": lrd(stop=Stop(max_entropy=h)) for h in (0.05, 0.2, 0.5, 1.0)},
    **{f"guard: confidence > {c:g}": lrd(stop=Stop(min_confidence=c)) for c in (0.7, 0.9)},
    # How much is fed back, under parallel commits and under fixed budgets.
    **{
        f"threshold 0.9, guard, r_f {r:g}": lrd(threshold=0.9, stop=GUARD, mix=Mix(r_f=r))
        for r in (0.0, 0.15, 0.4, 0.7, 1.0)
    },
    **{
        f"threshold 0.9, guard, no refinement, r_f {r:g}": lrd(threshold=0.9, stop=GUARD, mix=Mix(r_f=r), refine=None)
        for r in (0.15, 0.4, 0.7, 1.0)
    },
    **{
        f"{k} a step, no stop, no refinement, r_f {r:g}": lrd(per_step=k, stop=None, mix=Mix(r_f=r), refine=None)
        for k in (4, 8)
        for r in (0.0, 0.4, 0.7, 1.0)
    },
    **{
        f"threshold 0.9 plus 4 a step, end-of-text stop, r_f {r:g}": lrd(
            per_step=4, threshold=0.9, stop=None, mix=Mix(r_f=r), refine=None, end_of_text=True
        )
        for r in (0.0, 0.4, 0.7)
    },
    # One shot, and after refinements alone.
    "one shot": lambda G: DecodeConfig.plain(G, per_step=G),
    **{
        f"one shot after 2 refinements, r_f {r:g}": lambda G, r=r: DecodeConfig.plain(
            G, per_step=G, mix=Mix(r_f=r), refine=Refine.times(2)
        )
        for r in (0.4, 0.7, 1.0)
    },
    "one a step, no stop, r_f 0.4": lrd(stop=None, mix=Mix(r_f=0.4)),
}

CACHES: Decoders = {
    f"{name}, blocks of {W}, {kept}": lambda G, make=make, W=W, cache=cache: make(G, block_length=W, cache=cache)
    for W in (8, 32)
    for name, make in (("threshold 0.9", DecodeConfig.fast), ("lrd", DecodeConfig.lrd))
    for kept, cache in (("no cache", None), ("prefix cache", PrefixCache()), ("dual cache", DualCache()))
}

DECODER_SETS: dict[str, Decoders] = {"table": TABLE, "scan": SCAN, "caches": CACHES}
