"""Training inputs as refinement and mixing make them: forwards whose beliefs soften the masked positions.

The formula is the decoder's own (`lrd_jax.decoding.parts.mix`, Eq. 3 and 4). With `SoftInputs.through` it is trained as
well: gradients run back through the beliefs into the forwards that held them. The floor of the nucleus is compared with
and has none. Axes: B batch, G canvas, D embed, V vocab.
"""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts import mix as mixing
from lrd_jax.decoding.vocab import belief
from lrd_jax.train.config import SoftInputs

# exp of it is 0, as of -inf, but nothing of it is infinite: an infinite logit's gradient would be 0 * inf.
SUPPRESSED = -1e9


def draw_feedback(key: jax.Array, B: int, config: SoftInputs) -> tuple[jax.Array, jax.Array]:
    """Each row's number of forwards, int32 `[B, 1]`, and its feedback ratio r_f, `[B, 1]`."""
    share_key, count_key, ratio_key = jax.random.split(key, 3)
    takes_part = jax.random.uniform(share_key, (B, 1)) < config.share
    least = config.refinements if config.every_depth else 0
    count = jax.random.randint(count_key, (B, 1), least, config.refinements + 1)
    r_f = jax.random.uniform(ratio_key, (B, 1), minval=config.min_r_f, maxval=config.max_r_f)
    return jnp.where(takes_part, count, 0), r_f


def feed_back(
    logits: jax.Array,
    canvas: jax.Array,
    masked: jax.Array,
    table: jax.Array,
    mask_id: int,
    *,
    r_f: jax.Array,
    top_p: float,
) -> jax.Array:
    """The canvas embeddings that refinement feeds after a forward.

    Args:
      logits: float32 `[B, G, V]`, of that forward.
      canvas: `[B, G, D]`, its input.
      masked: bool `[B, G]`, the positions that are softened; all others stay.
      table: token embeddings `[V, D]`.
      r_f: `[B, 1]`, see `draw_feedback`.
      top_p: mass of the nucleus.

    Returns:
      `[B, G, D]`, a differentiable function of logits, canvas and table.
    """
    logits = logits.at[..., mask_id].set(SUPPRESSED)
    soft = mixing.soft_embeddings(logits, belief.read(logits).entropy, table, mask_id, r_f, top_p)
    return jnp.where(masked[..., None], soft, canvas)
