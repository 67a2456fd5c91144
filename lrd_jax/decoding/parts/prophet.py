"""Prophet (arXiv 2508.19982): the rest is decided once the answer's tokens are far ahead of their rivals.

Axes: B batch, G canvas.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lrd_jax.decoding.parts.stop import StopRule
from lrd_jax.decoding.setting import Number, column, number, setting, whole, whole_number
from lrd_jax.decoding.sight import Sight
from lrd_jax.errors import Refused

ANSWER = 5  # positions of an answer that are looked at


@setting
class Prophet(StopRule):
    """All that is masked, in later blocks too, takes its token once the answer's mean gap reaches a threshold.

    The gap of a position is its largest logit minus the second largest, committed or not. It is meant over the five
    positions from `answer_start` that the row has. The threshold falls with the row's forwards, this one among them, as
    a share of those that the commit rule plans: below 0.33 it is `early`, below 0.67 `mid`, then `late`.

    Attributes:
      early, mid, late: thresholds, in logits.
      answer_start: place in the canvas where the answer begins; behind a row's end, that row never stops early. None:
        no row does, as in the published evaluation of prompts without an answer's place.
    """

    early: Number = number(default=7.5)
    mid: Number = number(default=5.0)
    late: Number = number(default=2.5)
    answer_start: Number | None = whole(default=None)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"canvas", "gap", "planned"})

    @property
    def fills_canvas(self) -> bool:
        return True

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        if self.answer_start is None:
            return jnp.zeros_like(sight.running)
        taken, planned = 100 * (sight.forwards + 1), sight.planned
        threshold = jnp.where(
            taken < 33 * planned, self.early, jnp.where(taken < 67 * planned, self.mid, self.late)
        )  # shares in whole numbers: a quotient that falls on 0.33 is rounded as it likes
        gap, answered = self.gap(sight)
        return sight.running & answered & (gap >= threshold)

    def check_canvas(self, length):
        start = self.answer_start
        if start is not None and not isinstance(start, Tracer) and np.ndim(start) == 0 and start >= length:
            raise Refused(
                f"stop.answer_start={int(start)} lies behind the canvas of {length} positions, so that nothing would "
                "ever stop early: name a place in it"
            )

    def gap(self, sight: Sight) -> tuple[jax.Array, jax.Array]:
        """The answer's mean gap, float32 `[B]`, and whether the row has any of its positions, bool `[B]`."""
        assert sight.canvas is not None and self.answer_start is not None
        gap, exists = sight.canvas.belief.gap, sight.canvas.exists
        ahead = jnp.arange(gap.shape[1]) - column(whole_number(self.answer_start))
        inside = jnp.broadcast_to((ahead >= 0) & (ahead < ANSWER), gap.shape)
        inside = inside if exists is None else inside & exists
        count = jnp.sum(inside, axis=-1)
        return jnp.sum(jnp.where(inside, gap, 0.0), axis=-1) / jnp.maximum(count, 1), count > 0
