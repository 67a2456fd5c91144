"""Each table and figure: its title, and what has to be measured for it.

The numbers are the paper's where they are known, tables 1 and 4; the others follow the order of what it shows.
"""

import dataclasses
import fnmatch
from collections.abc import Iterator

from lrd_jax.errors import Refused
from lrd_jax.presets import yours
from lrd_jax.research.cells import Wanted
from lrd_jax.research.decoders import CACHES, SCAN, TABLE, Decoders
from lrd_jax.research.reproduce.decoders import (
    ABLATION,
    BESIDE,
    COURSES,
    EFFECTIVE,
    FEEDBACK,
    FRONTS,
    NUCLEUS,
    PAPER,
    REFINED,
    SETTLING,
    SHIPPED,
    of_all,
)
from lrd_jax.research.reproduce.options import Reproduce


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One table or figure.

    Attributes:
      measured: decoders on all problems.
      needs: what their cells must hold, see `lrd_jax.research.cells.Wanted`.
      replayed: decoders on fewer problems, step by step.
    """

    title: str
    measured: Decoders
    needs: tuple[str, ...] = ()
    replayed: Decoders = dataclasses.field(default_factory=dict)


EXHIBITS: dict[str, Exhibit] = {
    "table1": Exhibit("Baseline and LRD: accuracy and speed", TABLE | BESIDE),
    "table2": Exhibit(
        "When beliefs are refined: once, before every commit (LFxk), until settled (Auto)", REFINED | BESIDE
    ),
    "table3": Exhibit("Without refinement, mixing, stop", ABLATION | BESIDE),
    "table4": Exhibit(
        "Effective tokens, and what the speed-up is made of",
        EFFECTIVE | BESIDE,
        replayed=COURSES | {name: TABLE[name] for name in (PAPER, "threshold 0.9", SHIPPED)},
    ),
    "figure2": Exhibit("Distance to the final output by forward", {}, replayed=COURSES),
    "figure3": Exhibit("Share of rows settled by refinement step", SETTLING, needs=("refinements",)),
    "figure4": Exhibit("Accuracy and mixing against r_f", of_all(FEEDBACK), replayed=of_all(FEEDBACK)),
    "figure5": Exhibit("Accuracy and mixing against top_p", of_all(NUCLEUS), replayed=of_all(NUCLEUS)),
    "front": Exhibit(
        "Accuracy against forwards: the front of every kind of decoder",
        {name: make for name, make in of_all(FRONTS).items() if name not in SCAN},
    ),
    "scan": Exhibit("LRD's stop, its guards, r_f and the commit rule varied", SCAN),
    "caches": Exhibit("Caches", CACHES),
}

KNOWN: Decoders = of_all({name: one.measured | one.replayed for name, one in EXHIBITS.items()})


def wanted(options: Reproduce) -> list[Wanted]:
    """The cells that the options ask for, each once, cheap canvases first."""
    found: dict[tuple, Wanted] = {}
    for one in _all(options):
        key = (one.canvas, one.decoder, one.problems)
        needs = set(one.needs) | set(found[key].needs if key in found else ())
        found[key] = dataclasses.replace(one, needs=tuple(sorted(needs)))
    if not found:
        raise Refused(f"only={', '.join(options.only)} names no decoder of {', '.join(options.what)}")
    return sorted(found.values(), key=lambda one: one.canvas)


def selected(decoders: Decoders, options: Reproduce) -> Decoders:
    """Those that `only` names."""
    return {n: make for n, make in decoders.items() if any(fnmatch.fnmatchcase(n, p) for p in options.only)}


def _all(options: Reproduce) -> Iterator[Wanted]:
    for canvas, count in zip(options.canvases, options.counts, strict=True):
        for name, make in yours(options).items():
            make(canvas)  # refuses what cannot be
            yield Wanted(decoder=name, make=make, canvas=canvas, problems=count)
        for exhibit in (EXHIBITS[name] for name in options.what):
            for name, make in selected(exhibit.measured, options).items():
                yield Wanted(decoder=name, make=make, canvas=canvas, problems=count, needs=exhibit.needs)
            for name, make in selected(exhibit.replayed, options).items():
                few = min(count, options.replayed)
                yield Wanted(decoder=name, make=make, canvas=canvas, problems=few, needs=("steps",))
