"""When the rest of a block is decided: beliefs have settled (Eq. 6), and every open position is sure."""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import Number, column, number, setting
from lrd_jax.decoding.sight import Sight


class StopRule(Part):
    """A rule that may decide the rest of a block: all its masked positions then take their proposed tokens at once."""

    @property
    def fills_canvas(self) -> bool:
        """Whether what it decides is the rest of the canvas, later blocks too; it must then read "canvas"."""
        return False

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        """bool `[B]`: rows whose block ends on this forward. The rule says itself when it may be asked."""
        raise NotImplementedError

    def check_canvas(self, length: int) -> None:
        """Raises ValueError where the rule does not fit a canvas of so many positions."""


class NoStop(StopRule):
    """Blocks end by their commits alone."""

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        return jnp.zeros_like(sight.running)


@setting
class Stop(StopRule):
    """The paper's stop, D_t < tau_decode, with guards.

    A small D_t alone is no sign that the rest is decided: lowest-entropy commits come first where committing changes
    nothing, and beliefs stand still while the hard positions are open. The guards ask every masked position of the
    window to be sure as well.

    Attributes:
      tau: settled when D_t < tau (tau_decode), nats.
      max_entropy: guard, nats: every masked position's entropy must be below it.
      min_confidence: guard: every masked position's confidence must be above it.
    """

    tau: Number = number(default=0.1)
    max_entropy: Number | None = number(default=None)
    min_confidence: Number | None = number(default=None, high=1)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"kl"})

    def __call__(self, sight: Sight, state: Any) -> jax.Array:
        return asked(sight) & self.settled(sight)

    def settled(self, sight: Sight) -> jax.Array:
        """bool `[B]`: D_t is below tau and every masked position meets the guards."""
        settled = sight.divergence < self.tau
        if self.max_entropy is not None:
            settled &= jnp.all(~sight.masked | (sight.belief.entropy < column(self.max_entropy)), axis=-1)
        if self.min_confidence is not None:
            settled &= jnp.all(~sight.masked | (sight.belief.confidence > column(self.min_confidence)), axis=-1)
        return settled


def asked(sight: Sight) -> jax.Array:
    """bool `[B]`: the forward right after a commit, which shows what that commit changed."""
    return (sight.commits > 0) & (sight.refined == 0) & sight.running
