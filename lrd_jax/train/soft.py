"""Training inputs as refinement and mixing make them: 0, 1 or 2 gradient-free forwards soften the masked positions.

The formula is the decoder's own (`lrd_jax.mixing`, Eq. 3 and 4). Axes: B batch, G canvas, D embed, V vocab.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lrd_jax import belief, mixing
from lrd_jax.train.config import SoftInputs

LARGEST_COUNT = 2


def soften(
    forward: Callable[[jax.Array], jax.Array],
    canvas: jax.Array,
    masked: jax.Array,
    table: jax.Array,
    mask_id: int,
    key: jax.Array,
    config: SoftInputs,
) -> jax.Array:
    """The canvas embeddings after each row's own number of forwards.

    Args:
      forward: canvas embeddings `[B, G, D]` -> float32 logits `[B, G, V]`.
      canvas: `[B, G, D]`, token embeddings where committed and e_[MASK] where masked.
      masked: bool `[B, G]`.
      table: token embeddings `[V, D]`, out of the gradient's reach.

    Returns:
      `[B, G, D]`; rows with a count of 0 and committed positions are as they were, gradients included.
    """
    share_key, count_key, ratio_key = jax.random.split(key, 3)
    B = canvas.shape[0]
    takes_part = jax.random.uniform(share_key, (B, 1)) < config.share
    count = jnp.where(takes_part, jax.random.randint(count_key, (B, 1), 0, LARGEST_COUNT + 1), 0)
    r_f = jax.random.uniform(ratio_key, (B, 1), maxval=config.max_r_f)
    for i in range(LARGEST_COUNT):
        logits = forward(jax.lax.stop_gradient(canvas)).at[..., mask_id].set(-jnp.inf)
        soft = mixing.soft_embeddings(logits, belief.read(logits).entropy, table, mask_id, r_f, config.top_p)
        canvas = jnp.where((masked & (count > i))[..., None], jax.lax.stop_gradient(soft), canvas)
    return canvas
