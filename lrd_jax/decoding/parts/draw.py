"""Which token a position proposes: the likeliest, or one drawn.

Axes: B batch, w positions of the window, V vocab.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import Number, column, count, is_known, number, setting
from lrd_jax.decoding.vocab import belief as beliefs
from lrd_jax.decoding.vocab.belief import Belief, confidence_of
from lrd_jax.decoding.vocab.sampling import draw, filtered
from lrd_jax.errors import Refused

_LEAST = 1e-6  # temperature by which logits can be divided


@setting
class Draw(Part):
    """The tokens' draw. Beliefs are never scaled by a temperature; what is drawn from is.

    Attributes:
      temperature: 0 takes the argmax.
      top_p: mass of the nucleus that is drawn from (Dream); None: all.
      top_k: so many of the likeliest tokens are drawn from (Dream); None: all.
    """

    temperature: Number = number(default=0.0, high=1e6)
    top_p: Number | None = number(default=None, high=1, open_low=True)
    top_k: int | None = count(default=None)

    def __post_init__(self):
        if is_known(self.temperature) and np.any((x := np.asarray(self.temperature)) * (x < _LEAST)):
            raise Refused(
                f"Draw.temperature={self.temperature!r:.200} must be 0, which draws nothing, or at least {_LEAST:g}"
            )

    def propose(self, logits: jax.Array, belief: Belief, keys: jax.Array | None, *, reads: frozenset[str]) -> Belief:
        """The belief as the commit rule reads it: with the token that would be committed.

        Args:
          logits: `[B, w, V]`, and their `belief`.
          keys: one a position `[B, w]`; None: no temperature is above 0.
          reads: "filtered": the belief is that of the filtered logits; "margin": with margins.
        """
        if "filtered" not in reads and self.top_p is None and self.top_k is None:
            return self._tempered(logits, belief, keys)
        q = filtered(logits, self.temperature, self.top_p, self.top_k)
        seen = beliefs.read(q, margin="margin" in reads)
        token = self._where_hot(keys, lambda keys: draw(q, keys), seen.token)
        if "filtered" in reads:
            confidence = self._where_hot(keys, lambda _: confidence_of(q, token, seen.log_z), seen.confidence)
            return seen.replace(token=token, confidence=confidence)
        return belief.replace(token=token, confidence=confidence_of(logits, token, belief.log_z))

    def _tempered(self, logits, belief, keys):
        def drawn(keys):
            token = draw(filtered(logits, self.temperature, None, None), keys)
            return token, confidence_of(logits, token, belief.log_z)

        token, confidence = self._where_hot(keys, drawn, (belief.token, belief.confidence))
        return belief.replace(token=token, confidence=confidence)

    def _where_hot(self, keys, drawn, likeliest):
        """drawn(keys) in rows of a temperature above 0, the likeliest in others; nothing is drawn where none is."""
        if keys is None:
            return likeliest
        hot = jnp.asarray(self.temperature) > 0
        chosen = jax.lax.cond(jnp.any(hot), drawn, lambda _: likeliest, keys)
        return jax.tree.map(lambda new, old: jnp.where(column(hot), new, old), chosen, likeliest)
