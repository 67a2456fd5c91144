"""Latent Refinement Decoding for masked diffusion language models, in JAX.

    model, params, tokenizer, config = lrd_jax.load("lrd-tiny-soft")
    decode = lrd_jax.make_decode(model, lrd_jax.DecodeConfig.lrd(gen_length=64))
    result = decode(params, prompt)

Names stand in `__init__.pyi` and are imported when first used, so that the command line starts fast.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
