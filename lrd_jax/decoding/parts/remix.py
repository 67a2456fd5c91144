"""ReMix's mixture: some of a belief is fed back until it moves too far from the one before.

Axes: B batch, W active window.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.mix import MixRule
from lrd_jax.decoding.setting import Number, column, flag, number, setting
from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.vocab.belief import Belief
from lrd_jax.decoding.vocab.nucleus import Tokens, Within

_MOST = 50  # tokens of a mixture
_LEAST_MASS, _MOST_MASS = 0.2, 0.9


@setting
class ReMix(MixRule):
    """ReMix (rejection mixing, arXiv 2602.22868): e_[MASK] + beta (sum_{v in T} p(v) e_v - m e_[MASK]), m T's mass.

    T are the most probable tokens, at most 50, whose mass stays within clip(2 max p, 0.2, 0.9), the likeliest always.
    Nothing is fed back before a belief was compared with an earlier one: after a row's first forward, and on a block's
    first. A masked position whose belief moved by a Jensen-Shannon divergence of more than `js` is **reset**: it feeds
    back [MASK] alone.

    As in the published code, a position that was reset is compared with no belief at all on the next forward, which is
    about ln(2) / 2 = 0.347 for any belief: below that `js` resets it again and again until it is committed, above it
    the position mixes again.

    Attributes:
      beta: share of the belief that is fed back; 0 is plain [MASK].
      js: a belief that moves by more than this is reset, nats.
      recovers: the forward after a reset compares nothing, so that the position mixes again whatever `js` is.
    """

    text_name: ClassVar[str] = "remix"
    beta: Number = number(default=0.5, high=1)
    js: Number = number(default=0.3)
    recovers: bool = flag(default=False)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"js", "mass", "carried"} if self.recovers else {"js", "js_none", "mass", "carried"})

    def start(self, rows: int, window: int) -> jax.Array:
        return jnp.zeros((rows, window), bool)  # was reset

    def observe(self, sight: Sight, state: Any) -> jax.Array:
        if self.recovers:
            moved = ~state & (sight.js > column(self.js))
        else:
            moved = jnp.where(state, sight.js_none, sight.js) > column(self.js)
        return sight.masked & jnp.isfinite(sight.js) & moved

    def tokens(self, belief: Belief) -> Tokens:
        return Within(jnp.clip(2.0 * belief.confidence, _LEAST_MASS, _MOST_MASS), _MOST)

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        return jnp.where(jnp.isfinite(sight.js) & ~state, column(self.beta) * sight.mass, 0.0)
