"""How far beliefs moved between two forwards (Eq. 6)."""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import choice, setting


@setting
class Divergence(Part):
    """How the per-position KL(p_t || p_{t-1}) of a window becomes one number D_t a row.

    Attributes:
      reduce: "mean" (Eq. 6), "sum" or "max".
      scope: "block", every position of the active window (Eq. 6); "masked", those masked before this step's commit.
    """

    reduce: str = choice("mean", "sum", "max", default="mean")
    scope: str = choice("block", "masked", default="block")

    def __call__(self, kl: jax.Array, masked: jax.Array, exists: jax.Array | None = None) -> jax.Array:
        """D_t `[B]` in nats from kl, masked and exists `[B, W]` (see `Sight`); 0 over an empty scope."""
        block = jnp.ones_like(masked) if exists is None else exists
        counted = masked if self.scope == "masked" else block
        kl = jnp.where(counted, kl, 0.0)
        if self.reduce == "max":
            return jnp.max(kl, axis=-1)
        total = jnp.sum(kl, axis=-1)
        if self.reduce == "sum":
            return total
        return total / jnp.maximum(jnp.sum(counted, axis=-1), 1)
