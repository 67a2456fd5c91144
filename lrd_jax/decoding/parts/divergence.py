"""How far beliefs moved between two forwards (Eq. 6)."""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.setting import check_name, setting, static


@setting
class Divergence:
    """How the per-position KL(p_t || p_{t-1}) of a window becomes one number D_t a row.

    Attributes:
      reduce: "mean" (Eq. 6), "sum" or "max".
      scope: "block", every position of the active window (Eq. 6); "masked", those masked before this step's commit.
    """

    reduce: str = static("mean")
    scope: str = static("block")

    def __post_init__(self):
        check_name(self, "reduce", ("mean", "sum", "max"))
        check_name(self, "scope", ("block", "masked"))

    def __call__(self, kl: jax.Array, masked: jax.Array) -> jax.Array:
        """D_t `[B]` in nats from kl `[B, W]` and masked `[B, W]`; 0 over an empty scope."""
        counted = masked if self.scope == "masked" else jnp.ones_like(masked)
        kl = jnp.where(counted, kl, 0.0)
        if self.reduce == "max":
            return jnp.max(kl, axis=-1)
        total = jnp.sum(kl, axis=-1)
        if self.reduce == "sum":
            return total
        return total / jnp.maximum(jnp.sum(counted, axis=-1), 1)
