"""Latent Refinement Decoding for masked diffusion language models, in JAX.

    model, params, tokenizer, config = lrd_jax.load("lrd-tiny-soft")
    decode = lrd_jax.make_decode(model, lrd_jax.DecodeConfig.lrd(gen_length=64))
    result = decode(params, prompt)

Names are imported when first used, so that the command line starts fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrd_jax.checkpoint import load as load
    from lrd_jax.decoding.config import DecodeConfig as DecodeConfig
    from lrd_jax.decoding.loop import make_decode as make_decode
    from lrd_jax.decoding.parts.cache.region import DualCache as DualCache
    from lrd_jax.decoding.parts.cache.region import PrefixCache as PrefixCache
    from lrd_jax.decoding.parts.commit.basic import LowestEntropy as LowestEntropy
    from lrd_jax.decoding.parts.commit.basic import Threshold as Threshold
    from lrd_jax.decoding.parts.commit.parallel import KLASS as KLASS
    from lrd_jax.decoding.parts.commit.parallel import EntropyBound as EntropyBound
    from lrd_jax.decoding.parts.commit.parallel import Factor as Factor
    from lrd_jax.decoding.parts.commit.parallel import Margin as Margin
    from lrd_jax.decoding.parts.commit.reference import Dream as Dream
    from lrd_jax.decoding.parts.commit.reference import DreamThreshold as DreamThreshold
    from lrd_jax.decoding.parts.commit.reference import FirstThen as FirstThen
    from lrd_jax.decoding.parts.commit.reference import Scheduled as Scheduled
    from lrd_jax.decoding.parts.commit.rule import CommitRule as CommitRule
    from lrd_jax.decoding.parts.divergence import Divergence as Divergence
    from lrd_jax.decoding.parts.draw import Draw as Draw
    from lrd_jax.decoding.parts.mix import Mix as Mix
    from lrd_jax.decoding.parts.refine import Refine as Refine
    from lrd_jax.decoding.parts.stop import Stop as Stop
    from lrd_jax.decoding.setting import setting as setting
    from lrd_jax.decoding.sight import Change as Change
    from lrd_jax.decoding.sight import Sight as Sight
    from lrd_jax.decoding.state import DecodeResult as DecodeResult
    from lrd_jax.decoding.state import DecodeState as DecodeState
    from lrd_jax.decoding.state import StopReason as StopReason

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("load",),
    "decoding.config": ("DecodeConfig",),
    "decoding.loop": ("make_decode",),
    "decoding.parts.cache.region": ("DualCache", "PrefixCache"),
    "decoding.parts.commit.basic": ("LowestEntropy", "Threshold"),
    "decoding.parts.commit.parallel": ("KLASS", "EntropyBound", "Factor", "Margin"),
    "decoding.parts.commit.reference": ("Dream", "DreamThreshold", "FirstThen", "Scheduled"),
    "decoding.parts.commit.rule": ("CommitRule",),
    "decoding.parts.divergence": ("Divergence",),
    "decoding.parts.draw": ("Draw",),
    "decoding.parts.mix": ("Mix",),
    "decoding.parts.refine": ("Refine",),
    "decoding.parts.stop": ("Stop",),
    "decoding.setting": ("setting",),
    "decoding.sight": ("Change", "Sight"),
    "decoding.state": ("DecodeResult", "DecodeState", "StopReason"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = list(_HOME_OF)


if not TYPE_CHECKING:  # a checker that saw it would take any name

    def __getattr__(name: str):
        if name not in _HOME_OF:
            raise AttributeError(f"module 'lrd_jax' has no attribute {name!r}")
        return getattr(importlib.import_module(f"lrd_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
