# pyright: strict
"""What a typed user writes; it is checked, in strict mode, and never run."""

import jax
import jax.numpy as jnp
import numpy as np

import lrd_jax


@lrd_jax.setting
class LeftToRight(lrd_jax.CommitRule):
    """Commits the leftmost masked position."""

    def __call__(self, sight: lrd_jax.Sight, state: tuple[()]) -> tuple[lrd_jax.Change, tuple[()]]:
        return lrd_jax.Change(sight.masked & (jnp.cumsum(sight.masked, axis=-1) == 1)), state


plain: lrd_jax.DecodeConfig = lrd_jax.DecodeConfig(64)
cached: lrd_jax.DecodeConfig = lrd_jax.DecodeConfig.lrd(64, cache=lrd_jax.DualCache())
ours: lrd_jax.DecodeConfig = lrd_jax.DecodeConfig(64, commit=LeftToRight())
parts = (lrd_jax.Mix(r_f=0.2), lrd_jax.Refine(), lrd_jax.Stop(max_entropy=0.2), lrd_jax.Divergence("mean", "block"))

loaded: lrd_jax.Loaded = lrd_jax.load("lrd-tiny-soft")
generator = lrd_jax.Generator(loaded, cached, batch=4)
answers = generator.generate(["Tom has 14 apples."], seed=0, stop=["#"])
texts: list[str] = [answer.text for answer in answers]
forwards: list[int] = [answer.forwards for answer in answers]

decode = lrd_jax.make_decode(loaded.model, cached)
result: lrd_jax.DecodeResult = decode(loaded.params, np.ones((1, 4), np.int32))
tokens: jax.Array = result.tokens
