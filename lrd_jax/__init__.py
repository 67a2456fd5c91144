"""Latent Refinement Decoding for masked diffusion language models, in JAX.

    loaded = lrd_jax.load("lrd-tiny-refined")
    generator = lrd_jax.Generator(loaded, lrd_jax.DecodeConfig.settle(gen_length=64))
    (answer,) = generator.generate(["Tom has 14 apples. Ann takes 5 apples. How many are left?"])

Names stand in `__init__.pyi` and are imported when first used, so that the command line starts fast.
"""

import os

import lazy_loader

from lrd_jax.version import __version__ as __version__

# transformers would tell everybody on standard error that torch is missing, and only tokenizers are wanted of it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
