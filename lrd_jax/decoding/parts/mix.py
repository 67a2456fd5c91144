"""What a masked position feeds back: [MASK] mixed with the mean embedding of its nucleus (Eq. 3, 4).

    alpha_i = r_f * (1 - H_i / log V)
    soft_i  = (1 - alpha_i) * e_[MASK] + alpha_i * sum_{v in T_i} pbar_i(v) * e_v

T_i, the nucleus, is the smallest set of most probable tokens whose mass reaches top_p; pbar is p renormalised on it.
The sums over a vocabulary are in `lrd_jax.decoding.vocab.nucleus`. Axes: B batch, W active window, V vocab, D embed.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import Number, column, number, setting
from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.vocab.belief import Belief
from lrd_jax.decoding.vocab.nucleus import Nucleus, Tokens, mean_of_nucleus, nucleus_floor


class MixRule(Part):
    """What a masked position feeds back: e_[MASK] + alpha (mean - e_[MASK]).

    The mean is that of the embeddings of some most probable tokens T, by their share of T's mass m, and made by the
    reading. With s = alpha / m it is the linear form

        e_[MASK] + s (sum_{v in T} p(v) e_v - m e_[MASK]),

    in which LRD's s is alpha / m and ReMix's s is beta.
    """

    def tokens(self, belief: Belief) -> Tokens:
        """T. Numbers of it broadcast to `[B, W]`."""
        raise NotImplementedError

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        """alpha `[B, W]`; `Sight.mass` is m, where the rule `reads` "mass"."""
        raise NotImplementedError


@setting
class Mix(MixRule):
    """LRD's mixture (Eq. 4): the surer a position, the more of its belief is fed back.

    Attributes:
      r_f: feedback ratio in [0, 1]; 0 is plain [MASK].
      top_p: mass of the nucleus in [0, 1]; 0 is plain [MASK].
    """

    r_f: Number = number(default=0.15, high=1)
    top_p: Number = number(default=0.9, high=1)

    def tokens(self, belief: Belief) -> Tokens:
        return Nucleus(column(self.top_p))

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        return feedback(sight.belief.entropy, sight.vocab_size, column(self.r_f), column(self.top_p))


def feedback(entropy: jax.Array, vocab_size: int, r_f: Any, top_p: Any) -> jax.Array:
    """alpha of Eq. 4 for entropies `[B, W]` in nats; 0 where they are not finite, and at top_p = 0."""
    alpha = r_f * (1.0 - entropy / jnp.log(float(vocab_size)))
    return jnp.where((top_p > 0) & jnp.isfinite(alpha), alpha, 0.0)


def blend(mean: jax.Array, alpha: jax.Array, table: jax.Array, mask_id: int) -> jax.Array:
    """(1 - alpha) e_[MASK] + alpha mean, for means `[..., D]` and alpha `[...]`, in the table's dtype."""
    alpha = alpha[..., None]
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
      r_f, top_p: see `Mix`; each may also be an array that broadcasts against `[B, W]`.

    Returns:
      `[B, W, D]` in the table's dtype; the mixing itself is float32 but for the product with the table.
    """
    with jax.named_scope("mixing"):
        p = jax.nn.softmax(logits, axis=-1)
        mean, _ = mean_of_nucleus(p, nucleus_floor(p, top_p), table)
        return blend(mean, feedback(entropy, table.shape[0], r_f, jnp.asarray(top_p)), table, mask_id)
