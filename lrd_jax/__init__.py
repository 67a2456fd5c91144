"""Latent Refinement Decoding for masked diffusion language models, in JAX.

    model, params, tokenizer, config = lrd_jax.load("lrd-tiny-soft")
    decode = lrd_jax.make_decode(model, lrd_jax.DecodeConfig.lrd(gen_length=64))
    result = decode(params, prompt)

Names are imported when first used, so that the command line starts fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrd_jax.cache import DualCache as DualCache
    from lrd_jax.cache import PrefixCache as PrefixCache
    from lrd_jax.checkpoint import load as load
    from lrd_jax.commit import AsFastDLLM as AsFastDLLM
    from lrd_jax.commit import CommitRule as CommitRule
    from lrd_jax.commit import Dream as Dream
    from lrd_jax.commit import DreamThreshold as DreamThreshold
    from lrd_jax.commit import LowestEntropy as LowestEntropy
    from lrd_jax.commit import Scheduled as Scheduled
    from lrd_jax.commit import Threshold as Threshold
    from lrd_jax.config import DecodeConfig as DecodeConfig
    from lrd_jax.decode import make_decode as make_decode
    from lrd_jax.mixing import Mix as Mix
    from lrd_jax.parallel import KLASS as KLASS
    from lrd_jax.parallel import EntropyBound as EntropyBound
    from lrd_jax.parallel import Factor as Factor
    from lrd_jax.parallel import Margin as Margin
    from lrd_jax.state import DecodeResult as DecodeResult
    from lrd_jax.state import DecodeState as DecodeState
    from lrd_jax.state import StopReason as StopReason
    from lrd_jax.stopping import Divergence as Divergence
    from lrd_jax.stopping import Refine as Refine
    from lrd_jax.stopping import Stop as Stop

_HOMES = {
    "cache": ("DualCache", "PrefixCache"),
    "checkpoint": ("load",),
    "commit": ("AsFastDLLM", "CommitRule", "Dream", "DreamThreshold", "LowestEntropy", "Scheduled", "Threshold"),
    "config": ("DecodeConfig",),
    "decode": ("make_decode",),
    "mixing": ("Mix",),
    "parallel": ("KLASS", "EntropyBound", "Factor", "Margin"),
    "state": ("DecodeResult", "DecodeState", "StopReason"),
    "stopping": ("Divergence", "Refine", "Stop"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = list(_HOME_OF)


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lrd_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lrd_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
