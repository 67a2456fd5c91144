"""How long beliefs are refined before tokens are committed."""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import Number, choice, column, count, number, setting
from lrd_jax.decoding.sight import Sight


@setting
class Refine(Part):
    """Refinement until D_t < tau, or until forward number `max_steps` of it (T_refine; the first counts).

    That same forward commits (Eq. 7 holds for t = t*).

    Attributes:
      tau: settled below this, nats.
      max_steps: T_refine.
      before: "block", once at the start of a block; "commit", anew before every commit.
      min_confidence: a row also commits once every masked position's confidence is above it, and so on the first
        forward already: what is sure has nothing to refine. None: D_t alone decides.
    """

    tau: Number = number(default=0.1)
    max_steps: int = count(default=20)
    before: str = choice("block", "commit", default="block")
    min_confidence: Number | None = number(default=None, high=1)

    @classmethod
    def times(cls, k: int) -> "Refine":
        """`k` refinements before every commit (the paper's LFxk): nothing is below tau = 0, so all are run."""
        return cls(tau=0.0, max_steps=k + 1, before="commit")

    @classmethod
    def auto(cls, tau: Number = 0.1, max_steps: int = 20) -> "Refine":
        """Refinement until settled before every commit (the paper's Auto)."""
        return cls(tau=tau, max_steps=max_steps, before="commit")

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"kl"})

    def begins(self, rows: int) -> jax.Array:
        """bool `[B]`: whether a block begins in the commit phase."""
        return jnp.zeros(rows, bool)

    def __call__(self, sight: Sight) -> jax.Array:
        """bool `[B]`: rows that may commit on this forward."""
        ready = sight.committing | (sight.divergence < self.tau) | (sight.refined + 1 >= self.max_steps)
        if self.min_confidence is not None:
            ready |= jnp.all(~sight.masked | (sight.belief.confidence > column(self.min_confidence)), axis=-1)
        return ready

    def stays(self, commits: jax.Array, sight: Sight) -> jax.Array:
        """bool `[B]`: whether the next forward begins in the commit phase, after one that committed where said."""
        return sight.committing | commits if self.before == "block" else sight.committing

    def most_forwards(self, blocks: int, commits: int) -> int:
        """Most forwards that a canvas can spend in refinement beyond those that commit."""
        return (blocks if self.before == "block" else commits) * (self.max_steps - 1)


class NoRefine(Part):
    """No refinement: every forward may commit."""

    def begins(self, rows: int) -> jax.Array:
        return jnp.ones(rows, bool)

    def __call__(self, sight: Sight) -> jax.Array:
        return sight.committing

    def stays(self, commits: jax.Array, sight: Sight) -> jax.Array:
        return sight.committing

    def most_forwards(self, blocks: int, commits: int) -> int:
        return 0
