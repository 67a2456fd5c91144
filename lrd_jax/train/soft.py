"""Training inputs as refinement and mixing make them: 0, 1 or 2 gradient-free forwards soften the masked positions.

The formula is the decoder's own (`lrd_jax.decoding.parts.mix`, Eq. 3 and 4). Axes: B batch, G canvas, D embed, V vocab.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts import mix as mixing
from lrd_jax.decoding.vocab import belief
from lrd_jax.train.config import SoftInputs

LARGEST_COUNT = 2


def draw_feedback(key: jax.Array, B: int, config: SoftInputs) -> tuple[jax.Array, jax.Array]:
    """Each row's number of forwards, int32 `[B, 1]`, and its feedback ratio r_f, `[B, 1]`."""
    share_key, count_key, ratio_key = jax.random.split(key, 3)
    takes_part = jax.random.uniform(share_key, (B, 1)) < config.share
    count = jnp.where(takes_part, jax.random.randint(count_key, (B, 1), 0, LARGEST_COUNT + 1), 0)
    return count, jax.random.uniform(ratio_key, (B, 1), maxval=config.max_r_f)


def soften(
    forward: Callable[[jax.Array], jax.Array],
    canvas: jax.Array,
    masked: jax.Array,
    table: jax.Array,
    mask_id: int,
    *,
    count: jax.Array,
    r_f: jax.Array,
    top_p: float,
) -> jax.Array:
    """The canvas embeddings after each row's own number of forwards.

    Args:
      forward: canvas embeddings `[B, G, D]` -> float32 logits `[B, G, V]`.
      canvas: `[B, G, D]`, token embeddings where committed and e_[MASK] where masked.
      masked: bool `[B, G]`.
      table: token embeddings `[V, D]`.
      count, r_f: `[B, 1]`, see `draw_feedback`.
      top_p: mass of the nucleus.

    Returns:
      `[B, G, D]`. Soft embeddings carry no gradient; all else is `canvas` as it was.
    """
    for i in range(LARGEST_COUNT):
        logits = forward(jax.lax.stop_gradient(canvas)).at[..., mask_id].set(-jnp.inf)
        soft = mixing.soft_embeddings(logits, belief.read(logits).entropy, table, mask_id, r_f, top_p)
        canvas = jnp.where((masked & (count > i))[..., None], jax.lax.stop_gradient(soft), canvas)
    return canvas
