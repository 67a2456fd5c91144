"""What a masked position feeds back: [MASK] mixed with the mean embedding of its nucleus (Eq. 3, 4).

    alpha_i = r_f * (1 - H_i / log V)
    soft_i  = (1 - alpha_i) * e_[MASK] + alpha_i * sum_{v in T_i} pbar_i(v) * e_v

T_i, the nucleus, is the smallest set of most probable tokens whose mass reaches top_p; pbar is p renormalised on it.
Axes: B batch, W active window, V vocab, D embed.
"""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.setting import check_range, setting
from lrd_jax.decoding.vocab.largest import largest
from lrd_jax.decoding.vocab.nucleus import nucleus_floor


@setting
class Mix:
    """How much of its belief a masked position feeds back.

    Attributes:
      r_f: feedback ratio in [0, 1]; 0 is plain [MASK].
      top_p: mass of the nucleus in [0, 1]; 0 is plain [MASK].
    """

    r_f: float = 0.15
    top_p: float = 0.9

    def __post_init__(self):
        check_range(self, "r_f", 0, 1)
        check_range(self, "top_p", 0, 1)


def mean_of_nucleus(p: jax.Array, floor: jax.Array, table: jax.Array) -> jax.Array:
    """sum_{v in T} pbar(v) e_v, float32 `[..., D]`, T all tokens of probability >= floor `[...]` in p `[..., V]`.

    A product with the whole table.
    """
    nucleus = jnp.where(p >= floor[..., None], p, 0.0)
    mass = jnp.sum(nucleus, axis=-1, keepdims=True)
    pbar = (nucleus / jnp.where(mass > 0, mass, 1.0)).astype(table.dtype)
    mean = pbar.reshape(-1, pbar.shape[-1]) @ table
    return mean.reshape(*p.shape[:-1], -1).astype(jnp.float32)


def mean_of_largest(
    logits: jax.Array, log_z: jax.Array, table: jax.Array, top_p: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """`mean_of_nucleus` of softmax(logits) from the 64 largest of logits `[..., V]`, where they hold the nucleus.

    Returns:
      float32 `[..., D]`, and bool `[...]`: whether the nucleus ends before the 64th, so that no token outside ties with
      its last one. Where it does not, the mean is finite and meaningless.
    """
    values, ids = largest(logits)
    p = jnp.exp(values - log_z[..., None])
    mass = jnp.cumsum(p, axis=-1)
    crossing = jnp.argmax(mass >= top_p, axis=-1, keepdims=True)
    floor = jnp.take_along_axis(p, crossing, axis=-1)
    holds = (mass[..., -1] >= top_p) & (floor[..., 0] > p[..., -1]) & (jnp.asarray(top_p) < 1)
    nucleus = jnp.where(p >= floor, p, 0.0)
    total = jnp.sum(nucleus, axis=-1, keepdims=True)
    rows = table.at[ids].get(mode="clip").astype(jnp.float32)
    return jnp.einsum("...K,...KD->...D", nucleus / jnp.where(total > 0, total, 1.0), rows), holds


def blend(mean: jax.Array, entropy: jax.Array, table: jax.Array, mask_id: int, r_f, top_p) -> jax.Array:
    """Eq. 4: [MASK] and the mean embedding `[..., D]` of the nucleus, in the table's dtype."""
    alpha = r_f * (1.0 - entropy / jnp.log(float(table.shape[0])))
    alpha = jnp.where((top_p > 0) & jnp.isfinite(alpha), alpha, 0.0)[..., None]
    return ((1.0 - alpha) * table[mask_id].astype(jnp.float32) + alpha * mean).astype(table.dtype)


def soft_embeddings(
    logits: jax.Array,
    entropy: jax.Array,
    table: jax.Array,
    mask_id: int,
    r_f: jax.Array | float,
    top_p: jax.Array | float,
) -> jax.Array:
    """Eq. 3 and 4 for every position of the window.

    Args:
      logits: float32 `[B, W, V]`, the [MASK] logit already -inf if it is suppressed.
      entropy: `[B, W]` nats, of softmax(logits).
      table: token embeddings `[V, D]`.
      mask_id: row of e_[MASK].
      r_f, top_p: see `Mix`; r_f may also be an array that broadcasts against `[B, W]`.

    Returns:
      `[B, W, D]` in the table's dtype; the mixing itself is float32 but for the product with the table.
    """
    with jax.named_scope("mixing"):
        p = jax.nn.softmax(logits, axis=-1)
        mean = mean_of_nucleus(p, nucleus_floor(p, top_p), table)
        return blend(mean, entropy, table, mask_id, r_f, top_p)
