"""What the paper claims, what is compared here, and whether it holds on these cells."""

import dataclasses
from collections.abc import Callable, Iterable

from lrd_jax.research.markdown import table
from lrd_jax.research.reproduce.decoders import BASELINE, FEEDBACK, NUCLEUS, PAPER, SETTLING, SHIPPED
from lrd_jax.research.reproduce.figures import PAPER_SETTLED, settled_by
from lrd_jax.research.reproduce.folder import Setting, Shown
from lrd_jax.research.reproduce.tables import points
from lrd_jax.research.statistics import difference

HOLDS, NOT, OPEN = "holds", "does not hold", "not decided"

# Points: what a loss by the early stop may be and still count as none, beyond the 0.3 that the paper reports.
NO_LOSS = 0.01
PAPER_LOSS = 0.003
CONVERGED = 0.1  # of the first forward's distance to the final output


@dataclasses.dataclass(frozen=True)
class Finding:
    """One comparison: of what, with which numbers, and what follows."""

    compared: str
    found: str
    verdict: str


_WHOLE = (PAPER, "LRD, no stop", SHIPPED)

Test = Callable[[Setting], Iterable[Finding]]


def show(setting: Setting) -> Shown | None:
    """Every claim of the paper that the cells speak to."""
    return judged(CLAIMS, setting)


def judged(claims: dict[str, Test], setting: Setting) -> Shown | None:
    """Those of the claims that the cells speak to, with what was found."""
    findings = [(claim, finding) for claim, test in claims.items() for finding in test(setting)]
    told = ["", *(claim for claim, _ in findings)]
    lines = [
        ["" if claim == before else claim, f.compared, f.found, f.verdict]
        for before, (claim, f) in zip(told, findings, strict=False)
    ]
    data = [{"claim": claim, **dataclasses.asdict(finding)} for claim, finding in findings]
    return Shown(data, table(["the paper says", "compared here", "found (95 %)", "verdict"], lines)) if data else None


def better(*pairs: tuple[str, str], least: float = 0.0) -> Test:
    """The first of each pair is more accurate than the second; `least` is the smallest gain that the paper reports."""

    def test(setting: Setting) -> Iterable[Finding]:
        for name, other in pairs:
            more = of_pair(setting, name, other)
            if more is not None:
                verdict = HOLDS if more[1] > 0 else NOT if more[2] < least else OPEN
                yield Finding(f"{name} less {other}", f"{points(more)} points", verdict)

    return test


def _faster(*pairs: tuple[str, str]) -> Test:
    """The first of each pair takes less time, or where neither was timed fewer forwards."""

    def test(setting: Setting) -> Iterable[Finding]:
        for name, other in pairs:
            cell, reference = setting.pick(name), setting.pick(other)
            if cell and reference:
                fewer, faster = setting.fewer(cell, reference), setting.faster(cell, reference)
                found = f"{fewer:.2f}x by forwards" + ("" if faster is None else f", {faster:.2f}x by time")
                verdict = HOLDS if (fewer if faster is None else faster) > 1 else NOT
                yield Finding(f"{other} over {name}", found, verdict)

    return test


def _slower_without_stop(setting: Setting) -> Iterable[Finding]:
    for finding in _faster(("LRD, no stop", BASELINE))(setting):
        yield dataclasses.replace(finding, verdict=NOT if finding.verdict == HOLDS else HOLDS)


def free(*pairs: tuple[str, str], fewer: float = 0.0) -> Test:
    """The first of each pair loses nothing to the second, whose forwards are `fewer` times as many at least."""

    def test(setting: Setting) -> Iterable[Finding]:
        for name, other in pairs:
            more = of_pair(setting, name, other)
            if more is not None:
                times = setting.fewer(setting.pick(name), setting.pick(other))
                lost = more[2] < -PAPER_LOSS or times < fewer
                verdict = NOT if lost else HOLDS if more[1] > -NO_LOSS else OPEN
                saved = f", {times:.1f}x by forwards" if fewer else ""
                yield Finding(f"{name} less {other}", f"{points(more)} points{saved}", verdict)

    return test


def _settle_soon(setting: Setting) -> Iterable[Finding]:
    cell = setting.pick(PAPER, "refinements")
    if cell is not None:
        shares = settled_by(cell["refinements"], SETTLING[PAPER](setting.canvas).refine.max_steps)
        for step, share in PAPER_SETTLED.items():
            here = shares[min(step, len(shares)) - 1]
            yield Finding(f"rows settled by forward {step}", f"{here:.1%}", HOLDS if here >= share else NOT)


def _small_kl_is_convergence(setting: Setting) -> Iterable[Finding]:
    cell = setting.pick("LRD, no stop", "steps")
    if cell is not None:
        steps = cell["steps"]
        fired = [at for at, share in enumerate(steps["stopped"]) if share is not None and share >= 0.5]
        if fired:
            left = steps["distance"][fired[0]] / steps["distance"][0]
            found = f"at forward {fired[0] + 1}, {left:.0%} of the first forward's"
            compared = "distance to the final output where half of the rows would have been stopped"
            yield Finding(compared, found, HOLDS if left < CONVERGED else NOT)


def _one_collapses(setting: Setting) -> Iterable[Finding]:
    for base, decoders in FEEDBACK.items():
        named = {make(setting.canvas).mix.r_f: name for name, make in decoders.items()}
        more = of_pair(setting, named[1.0], named[0.0])
        if more is not None:
            verdict = HOLDS if more[2] < 0 else NOT if more[1] > 0 else OPEN
            yield Finding(f"{base}: r_f 1 less r_f 0", f"{points(more)} points", verdict)


def _nuclei_are_alike(setting: Setting) -> Iterable[Finding]:
    for base, decoders in NUCLEUS.items():
        named = {make(setting.canvas).mix.top_p: name for name, make in decoders.items()}
        all_more = {p: of_pair(setting, name, named[0.9]) for p, name in named.items() if p not in (0.0, 0.9)}
        told = {p: more for p, more in all_more.items() if more is not None}
        if told:
            apart = [p for p, more in told.items() if more[1] > 0 or more[2] < 0]
            found = "; ".join(f"{p:g}: {points(more)}" for p, more in sorted(told.items()))
            yield Finding(f"{base}, r_f 0.4: top_p less top_p 0.9, points", found, NOT if apart else HOLDS)


def _mostly_padding(setting: Setting) -> Iterable[Finding]:
    cell = setting.pick(BASELINE, "effective_tokens")
    if cell is not None:
        share = cell["effective_tokens"] / setting.canvas
        found = f"{cell['effective_tokens']:.1f} of {setting.canvas}, {share:.0%}"
        yield Finding("effective tokens of the baseline", found, HOLDS if share < 1 else NOT)


CLAIMS: dict[str, Test] = {
    "LRD is more accurate than the baseline, by 1.2 to 4.8 points at 512 (table 1)": better(
        *((name, BASELINE) for name in _WHOLE), least=0.012
    ),
    "It is faster, up to 10.6x (table 1)": _faster((PAPER, BASELINE), (SHIPPED, BASELINE)),
    "Without its stop it runs at 0.7 to 0.9x (table 4)": _slower_without_stop,
    "The stop costs 0 to 0.3 points (ablation)": free((PAPER, "LRD, no stop"), (SHIPPED, "lrd, no stop")),
    "A small KL is a reliable sign of convergence (abstract, figure 2)": _small_kl_is_convergence,
    "Refinement is worth 0.5 to 1.0 points (ablation)": better(
        (PAPER, "paper, no refinement"),
        ("8 a step, no stop, refined once", "8 a step, no stop, no refinement"),
        (SHIPPED, "lrd, no refinement"),
        least=0.005,
    ),
    "Mixing is worth 1.0 to 2.9 points (ablation)": better(
        (PAPER, "paper, no mixing"),
        ("8 a step, no stop, refined once", "plain, 8 a step"),
        (SHIPPED, "lrd, no mixing"),
        least=0.01,
    ),
    "68.9 % of rows settle by refinement step 2, over 85 % by 3 (figure 3)": _settle_soon,
    "r_f = 1 collapses (figure 4)": _one_collapses,
    "Any top_p of at least 0.2 is alike (figure 5)": _nuclei_are_alike,
    "Answers fill a part of the canvas only: 53 to 482 of 256 to 1024 (table 4)": _mostly_padding,
    "With Fast-dLLM's parallel commits it is more accurate than these alone": better(
        ("LRD, threshold 0.9 commits, guarded stop", "threshold 0.9"),
        ("lrd, blocks of 32, dual cache", "threshold 0.9, blocks of 32, dual cache"),
    ),
    "and faster still, up to 2.4x": _faster(
        ("LRD, threshold 0.9 commits, guarded stop", "threshold 0.9"),
        ("lrd, blocks of 32, dual cache", "threshold 0.9, blocks of 32, dual cache"),
    ),
}


def of_pair(setting: Setting, name: str, other: str) -> tuple[float, float, float] | None:
    cell, reference = setting.pick(name), setting.pick(other)
    return None if cell is None or reference is None else difference(cell, reference)
