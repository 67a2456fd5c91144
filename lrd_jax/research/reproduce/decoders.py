"""The decoders of the paper's tables and figures, and of those that belong beside them, as data."""

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.commit.basic import Threshold
from lrd_jax.decoding.parts.commit.parallel import KLASS, EntropyBound
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.research.decoders import (
    GUARD,
    TABLE,
    Decoders,
    budgets,
    guarded_thresholds,
    guards,
    in_blocks,
    lrd,
    mixed_budgets,
    mixed_thresholds,
    pushed_thresholds,
    settled,
    stops,
    thresholds,
    unrefined_thresholds,
)

BASELINE = "plain, 1 a step"
PAPER = "paper (LRD, unguarded stop)"
SHIPPED = "lrd (shipped)"

# What the paper's comparison lacks, for every table of it: an end-of-text stop, parallel commits and caches, each alone
# and under LRD.
BESIDE: Decoders = {
    "plain, 1 a step, end-of-text stop": TABLE["plain, 1 a step, end-of-text stop"],
    "paper, end-of-text stop": lrd(end_of_text=True),
    "LRD, guarded stop, end-of-text stop": TABLE["LRD, guarded stop, end-of-text stop"],
    "threshold 0.9": TABLE["threshold 0.9"],
    "threshold 0.9, end-of-text stop": TABLE["threshold 0.9, end-of-text stop"],
    "LRD, threshold 0.9 commits, guarded stop": TABLE["LRD, threshold 0.9 commits, guarded stop"],
    "lrd (shipped)": TABLE["lrd (shipped)"],
    **in_blocks(32),
}

# When beliefs are refined (the paper's LFxk and Auto), with all else equal. The first of a group is what the others are
# compared with, here and in the ablations.
_BASES = {
    "paper": {},
    "8 a step, no stop": {"per_step": 8, "stop": None},
    "threshold 0.9 commits, no stop": {"threshold": 0.9, "stop": None},
}
_REFINEMENTS = {
    "no refinement": None,
    "refined once": Refine(),
    "LFx1": Refine.times(1),
    "LFx2": Refine.times(2),
    "LF Auto": Refine.auto(),
}


def _refined(base: str, when: str) -> str:
    """The decoder's name: the paper's own refines once."""
    return PAPER if (base, when) == ("paper", "refined once") else f"{base}, {when}"


REFINED_GROUPS = tuple(tuple(_refined(base, when) for when in _REFINEMENTS) for base in _BASES)
REFINED: Decoders = {
    _refined(base, when): lrd(refine=refine, **parts)
    for base, parts in _BASES.items()
    for when, refine in _REFINEMENTS.items()
}

# One part left out: of the paper's LRD, of a fixed budget without a stop, of the LRD that is shipped.
ABLATION_GROUPS: tuple[Decoders, ...] = (
    {
        PAPER: TABLE[PAPER],
        "paper, no refinement": REFINED["paper, no refinement"],
        "paper, no mixing": lrd(mix=None),
        "LRD, no stop": TABLE["LRD, no stop"],
    },
    {
        "8 a step, no stop, refined once": REFINED["8 a step, no stop, refined once"],
        "8 a step, no stop, no refinement": REFINED["8 a step, no stop, no refinement"],
        "plain, 8 a step": TABLE["plain, 8 a step"],
    },
    {
        SHIPPED: TABLE[SHIPPED],
        "lrd, no refinement": lambda G: DecodeConfig.lrd(G, refine=None),
        "lrd, no mixing": lambda G: DecodeConfig.lrd(G, mix=None),
        "lrd, no stop": lambda G: DecodeConfig.lrd(G, stop=None),
    },
)
ABLATION: Decoders = {name: make for group in ABLATION_GROUPS for name, make in group.items()}

# Whose tokens are effective: the baseline's and LRD's, with and without its stop.
EFFECTIVE: Decoders = {name: TABLE[name] for name in (BASELINE, "LRD, no stop", PAPER)}

# How the distance to the final output falls.
COURSES: Decoders = {name: TABLE[name] for name in (BASELINE, "LRD, no stop")}

# How soon beliefs settle.
SETTLING: Decoders = {
    PAPER: TABLE[PAPER],
    **{f"paper, refined until D < {tau:g}": lrd(refine=Refine(tau)) for tau in (1e-3, 1e-5)},
}

# How much is fed back, and from how large a nucleus: under parallel commits and under a fixed budget.
_SWEPT = {
    "threshold 0.9, guard": {"threshold": 0.9, "stop": GUARD},
    "8 a step, no stop, no refinement": {"per_step": 8, "stop": None, "refine": None},
}
FEEDBACK: dict[str, Decoders] = dict(
    zip(_SWEPT, (mixed_thresholds(0.0, 0.15, 0.4, 0.7, 1.0), mixed_budgets((8,), (0.0, 0.4, 0.7, 1.0))), strict=True)
)
NUCLEUS: dict[str, Decoders] = {  # those of r_f 0.4 have the paper's top_p, 0.9
    base: {
        (f"{base}, r_f 0.4" if p == 0.9 else f"{base}, r_f 0.4, top_p {p:g}"): lrd(mix=Mix(r_f=0.4, top_p=p), **parts)
        for p in (0.0, 0.2, 0.5, 0.9, 1.0)
    }
    for base, parts in _SWEPT.items()
}


def of_all(groups: dict[str, Decoders]) -> Decoders:
    """The decoders of every group."""
    return {name: make for group in groups.values() for name, make in group.items()}


# The settings of each kind of decoder, from slow to fast. Without feedback nothing of LRD is left but its stop.
FRONTS: dict[str, Decoders] = {
    "k a step": budgets(1, 2, 4, 8, 16) | mixed_budgets((4, 8), (0.0,)),
    "k a step, end-of-text stop": budgets(1, 4, 8, end_of_text=True),
    "k a step with mixing": mixed_budgets((4, 8), (0.4, 0.7, 1.0)) | mixed_budgets((16,), (0.4, 0.7)),
    "confidence threshold (Fast-dLLM)": thresholds(0.9, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95, 0.99)
    | pushed_thresholds(0.0),
    "the same in cached blocks of 32": in_blocks(32, ("threshold 0.9",), ("prefix cache", "dual cache")),
    "entropy bound (EB-Sampler)": {
        f"entropy bound {gamma:g}": lambda G, gamma=gamma: DecodeConfig(G, commit=EntropyBound(gamma))
        for gamma in (0.01, 0.1, 0.3, 1.0)
    },
    "sure and stable (KLASS)": {
        f"KLASS, else {k} a step": lambda G, k=k: DecodeConfig(G, commit=KLASS(per_step=k)) for k in (1, 4, 8)
    },
    "far apart (DUS)": {"DUS": lambda G: DecodeConfig.dus(G)}
    | {f"DUS, blocks of {W}": lambda G, W=W: DecodeConfig.dus(G, block_length=W) for W in (8, 16, 32)},
    "wide, and taken back (WINO)": {
        f"WINO, threshold {t:g}": lambda G, t=t: DecodeConfig.wino(G, threshold=t) for t in (0.5, 0.6, 0.7, 0.8, 0.9)
    },
    "fed back, and reset (ReMix)": {
        f"ReMix, threshold {t:g}": lambda G, t=t: DecodeConfig.remix(G, threshold=t) for t in (0.5, 0.6, 0.7, 0.8, 0.9)
    },
    "the answer far ahead (Prophet)": {
        f"Prophet, answer from {a} on, {k} a step": lambda G, a=a, k=k: DecodeConfig.prophet(
            G, answer_start=a, steps=G // k
        )
        for a in (0, 8)
        for k in (1, 4)
    },
    "a canvas that grows (DAEDAL)": {
        f"DAEDAL, threshold {t:g}": lambda G, t=t: DecodeConfig.daedal(G, commit=Threshold(t)) for t in (0.9, 0.7, 0.5)
    },
    "LRD, the paper's stop": {name: TABLE[name] for name in (PAPER, "LRD, no stop")} | stops(),
    "LRD, guarded stop": {name: TABLE[name] for name in ("LRD, guarded stop", "LRD, guarded stop, end-of-text stop")}
    | guards(),
    "LRD, threshold commits": guarded_thresholds(0.9)
    | {SHIPPED: TABLE[SHIPPED]}
    | guarded_thresholds(0.5, 0.7, 0.8, 0.95, 0.99)
    | mixed_thresholds(0.15, 0.4, 0.7, 1.0)
    | unrefined_thresholds(0.15, 0.4, 0.7, 1.0)
    | pushed_thresholds(0.4, 0.7),
    "LRD, settled, then all": settled((0.1, 0.03, 0.01), (None, 0.95, 0.8, 0.6, 0.5, 0.4, 0.3)),
    "LRD, settled, on a canvas that grows": {
        f"{name}, DAEDAL": lambda G, make=make: make(G).replace(length=DecodeConfig.daedal(G).length)
        for name, make in settled((0.1, 0.03, 0.01), (None, 0.8, 0.5)).items()
    },
}

# Whose forwards are timed: the paper's comparison, what belongs beside it, and the field's other decoders.
_TO_TIME = of_all(FRONTS) | BESIDE
TIMED: Decoders = EFFECTIVE | {
    name: _TO_TIME[name]
    for name in (
        "threshold 0.9",
        "LRD, threshold 0.9 commits, guarded stop",
        SHIPPED,
        "threshold 0.9, blocks of 32, no cache",
        "threshold 0.9, blocks of 32, dual cache",
        "lrd, blocks of 32, dual cache",
        "KLASS, else 1 a step",
        "DUS",
        "WINO, threshold 0.9",
        "ReMix, threshold 0.9",
        "Prophet, answer from 0 on, 1 a step",
        "DAEDAL, threshold 0.9",
    )
}
