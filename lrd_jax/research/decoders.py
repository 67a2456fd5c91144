"""The decoders that are compared, as data: a name, and the config for a canvas of G positions.

A name is what a stored cell is of, and stays. Families of decoders are functions of their numbers, which write the
names of their members; whoever wants some of them asks for the numbers, and nobody takes a name apart.
"""

from collections.abc import Callable, Iterable

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.dkv import DKVCache
from lrd_jax.decoding.parts.cache.dllm import DLLMCache
from lrd_jax.decoding.parts.cache.region import DualCache, PrefixCache
from lrd_jax.decoding.parts.cache.sparse import SparseCache
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


def budgets(*per_step: int, end_of_text: bool = False) -> Decoders:
    """Hard masks, k a step."""
    ends = ", end-of-text stop" if end_of_text else ""
    return {f"plain, {k} a step{ends}": plain(per_step=k, end_of_text=end_of_text) for k in per_step}


def thresholds(*thresholds: float) -> Decoders:
    """Fast-dLLM's parallel commits."""
    return {f"threshold {t:g}": fast(t) for t in thresholds}


def guarded_thresholds(*thresholds: float) -> Decoders:
    """The same under LRD."""
    return {f"LRD, threshold {t:g} commits, guarded stop": lrd(threshold=t, stop=GUARD) for t in thresholds}


def mixed_budgets(per_step: tuple[int, ...], r_f: tuple[float, ...]) -> Decoders:
    """What is fed back under a fixed budget, with nothing else of LRD."""
    return {
        f"{k} a step, no stop, no refinement, r_f {r:g}": lrd(per_step=k, stop=None, mix=Mix(r_f=r), refine=None)
        for k in per_step
        for r in r_f
    }


def mixed_thresholds(*r_f: float) -> Decoders:
    """What is fed back under parallel commits."""
    return {f"threshold 0.9, guard, r_f {r:g}": lrd(threshold=0.9, stop=GUARD, mix=Mix(r_f=r)) for r in r_f}


def unrefined_thresholds(*r_f: float) -> Decoders:
    """The same without refinement."""
    return {
        f"threshold 0.9, guard, no refinement, r_f {r:g}": lrd(threshold=0.9, stop=GUARD, mix=Mix(r_f=r), refine=None)
        for r in r_f
    }


def pushed_thresholds(*r_f: float) -> Decoders:
    """Parallel commits, and 4 more a step."""
    return {
        f"threshold 0.9 plus 4 a step, end-of-text stop, r_f {r:g}": lrd(
            per_step=4, threshold=0.9, stop=None, mix=Mix(r_f=r), refine=None, end_of_text=True
        )
        for r in r_f
    }


def settled(taus: Iterable[float], confidences: Iterable[float | None]) -> Decoders:
    """Beliefs fed back in full until they settle, unless the row is sure, then everything at once."""
    return {
        f"settled below {tau:g}" + (f" or sure of {c:g}" if c is not None else ""): lambda G, tau=tau, c=c: (
            DecodeConfig.settle(G, refine=Refine(tau, min_confidence=c))
        )
        for tau in taus
        for c in confidences
    }


def stops() -> Decoders:
    """How the divergence is measured, and how small it must be."""
    return {
        f"stop {reduce} over {scope}, tau {tau:g}": lrd(stop=Stop(tau), divergence=Divergence(reduce, scope))
        for reduce in ("mean", "sum", "max")
        for scope in ("block", "masked")
        for tau in (0.1, 0.001)
    }


def guards() -> Decoders:
    """What else the stop asks for."""
    return {
        **{f"guard: entropy < {h:g}": lrd(stop=Stop(max_entropy=h)) for h in (0.05, 0.2, 0.5, 1.0)},
        **{f"guard: confidence > {c:g}": lrd(stop=Stop(min_confidence=c)) for c in (0.7, 0.9)},
    }


_IN_BLOCKS = {"threshold 0.9": DecodeConfig.fast, "lrd": DecodeConfig.lrd}
_CACHES = {"no cache": None, "prefix cache": PrefixCache(), "dual cache": DualCache()}


def in_blocks(W: int, names: Iterable[str] = _IN_BLOCKS, caches: Iterable[str] = _CACHES) -> Decoders:
    """Blocks of W positions, with and without caches."""
    return {
        f"{name}, blocks of {W}, {kept}": lambda G, name=name, kept=kept: _IN_BLOCKS[name](
            G, block_length=W, cache=_CACHES[kept]
        )
        for name in names
        for kept in caches
    }


TABLE: Decoders = {
    **budgets(1),
    **budgets(1, end_of_text=True),
    **budgets(2, 4),
    **budgets(4, end_of_text=True),
    **budgets(8),
    **budgets(8, end_of_text=True),
    **thresholds(0.9),
    "threshold 0.9, end-of-text stop": fast(0.9, end_of_text=True),
    "paper (LRD, unguarded stop)": lambda G: DecodeConfig.paper(G),
    "LRD, no stop": lrd(stop=None),
    "LRD, guarded stop": lrd(stop=GUARD),
    "LRD, guarded stop, end-of-text stop": lrd(stop=GUARD, end_of_text=True),
    **guarded_thresholds(0.9),
    "lrd (shipped)": lambda G: DecodeConfig.lrd(G),
}

SCAN: Decoders = {
    **stops(),
    **guards(),
    # How much is fed back, under parallel commits and under fixed budgets.
    **mixed_thresholds(0.0, 0.15, 0.4, 0.7, 1.0),
    **unrefined_thresholds(0.15, 0.4, 0.7, 1.0),
    **mixed_budgets((4, 8), (0.0, 0.4, 0.7, 1.0)),
    **pushed_thresholds(0.0, 0.4, 0.7),
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

_FIELD_CACHES = {"dLLM-Cache": DLLMCache(), "Sparse-dLLM": SparseCache(), "dKV-Cache": DKVCache()}


def kept_by_the_field(W: int) -> Decoders:
    """The field's other caches in blocks of W positions: as published for LLaDA, one token a step, with what they are
    compared with there; and under faster decoders."""
    return {
        f"{name}, blocks of {W}, {kept}": lambda G, make=make, cache=cache: make(G, block_length=W, cache=cache)
        for name, make, caches in (
            ("1 a step", DecodeConfig.llada, {"no cache": None, **_FIELD_CACHES}),
            *((name, make, _FIELD_CACHES) for name, make in _IN_BLOCKS.items()),
        )
        for kept, cache in caches.items()
    }


CACHES: Decoders = in_blocks(8) | in_blocks(32) | kept_by_the_field(32)
