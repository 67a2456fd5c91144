"""When the rest of a block is decided: beliefs have settled (Eq. 6), and every open position is sure."""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.setting import check_range, setting
from lrd_jax.decoding.vocab.belief import Belief


@setting
class Stop:
    """When the rest of a block is decided: all its masked positions then take their argmax at once.

    A small D_t alone is no sign of that: lowest-entropy commits come first where committing changes nothing, and
    beliefs stand still while the hard positions are open. The guards ask every masked position of the window to be
    sure as well. It is asked on the forward right after a commit.

    Attributes:
      tau: settled when D_t < tau (tau_decode), nats.
      max_entropy: guard, nats: every masked position's entropy must be below it.
      min_confidence: guard: every masked position's confidence must be above it.
    """

    tau: float = 0.1
    max_entropy: float | None = None
    min_confidence: float | None = None

    def __post_init__(self):
        check_range(self, "tau", 0)
        check_range(self, "max_entropy", 0)
        check_range(self, "min_confidence", 0, 1)

    def __call__(self, divergence: jax.Array, belief: Belief, masked: jax.Array) -> jax.Array:
        """bool `[B]`: D_t `[B]` is below tau and every masked position `[B, W]` meets the guards."""
        settled = divergence < self.tau
        if self.max_entropy is not None:
            settled &= jnp.all(~masked | (belief.entropy < self.max_entropy), axis=-1)
        if self.min_confidence is not None:
            settled &= jnp.all(~masked | (belief.confidence > self.min_confidence), axis=-1)
        return settled
