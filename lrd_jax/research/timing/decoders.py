"""The decoders that `lrd-jax bench` compares, as data: a name, and the config for a canvas."""

import dataclasses
from collections.abc import Callable

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.dkv import DKVCache
from lrd_jax.decoding.parts.cache.dllm import DLLMCache
from lrd_jax.decoding.parts.cache.region import DualCache, PrefixCache
from lrd_jax.decoding.parts.cache.sparse import SparseCache
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.setting import check_count
from lrd_jax.errors import Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas:
    """What every decoder of a benchmark fills, and in how many steps.

    Attributes:
      gen_length: G, positions to generate.
      block_length: active window; None: the whole canvas.
      steps: of decoders with a schedule; each commits G / steps positions.
      threshold: of decoders that commit by confidence.
    """

    gen_length: int
    block_length: int | None
    steps: int
    threshold: float

    def __post_init__(self):
        for field in ("gen_length", "block_length", "steps"):
            check_count(self, field)
        if not 0 <= self.threshold <= 1:
            raise Refused(f"Canvas.threshold={self.threshold} must be in [0, 1]")
        blocks = self.gen_length // self.window
        if self.gen_length % self.steps or self.steps % max(1, blocks):
            raise Refused(
                f"steps={self.steps} must divide gen_length={self.gen_length} and be a multiple of its {blocks} blocks"
            )

    @property
    def window(self) -> int:
        return self.block_length or self.gen_length

    @property
    def per_step(self) -> int:
        return self.gen_length // self.steps


Make = Callable[[Canvas], DecodeConfig]


# The references leave [MASK] among the tokens that can be predicted, so the decoders that answer to them do too.
def _llada(**changes) -> Make:
    return lambda c: DecodeConfig.llada(
        c.gen_length, steps=c.steps, block_length=c.block_length, suppress_mask=False, **changes
    )


def _threshold(**changes) -> Make:
    return lambda c: DecodeConfig.fast(
        c.gen_length, threshold=c.threshold, block_length=c.block_length, suppress_mask=False, **changes
    )


def _lrd(**changes) -> Make:
    return lambda c: DecodeConfig.lrd(
        c.gen_length, commit=LowestEntropy(c.per_step, c.threshold), block_length=c.block_length, **changes
    )


# Their references are told the same.
DLLM, SPARSE, DKV = DLLMCache(), SparseCache(), DKVCache()

DECODERS: dict[str, Make] = {
    "plain": lambda c: DecodeConfig.plain(c.gen_length, per_step=c.per_step, block_length=c.block_length),
    "llada": _llada(),
    "threshold": _threshold(),
    "lrd": _lrd(),
    "prefix": _llada(cache=PrefixCache()),
    "dual": _llada(cache=DualCache()),
    "dllm": _llada(cache=DLLM),
    "sparse": _llada(cache=SPARSE),
    "dkv": _llada(cache=DKV),
    "threshold+prefix": _threshold(cache=PrefixCache()),
    "threshold+dual": _threshold(cache=DualCache()),
    "lrd+prefix": _lrd(cache=PrefixCache()),
    "lrd+dual": _lrd(cache=DualCache()),
    "paper": lambda c: DecodeConfig.paper(c.gen_length, commit=LowestEntropy(c.per_step), block_length=c.block_length),
}
