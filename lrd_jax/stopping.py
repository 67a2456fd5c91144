"""When beliefs have settled (Eq. 6): divergence between two forwards, and the rules that read it."""

import jax
import jax.numpy as jnp

from lrd_jax.belief import Belief
from lrd_jax.settings import check_count, check_name, check_range, setting, static


@setting
class Divergence:
    """How the per-position KL(p_t || p_{t-1}) of a window becomes one number D_t a row.

    Attributes:
      reduce: "mean" (Eq. 6), "sum" or "max".
      scope: "block", every position of the active window (Eq. 6); "masked", those masked before this step's commit.
    """

    reduce: str = static("mean")
    scope: str = static("block")

    def __post_init__(self):
        check_name(self, "reduce", ("mean", "sum", "max"))
        check_name(self, "scope", ("block", "masked"))

    def __call__(self, kl: jax.Array, masked: jax.Array) -> jax.Array:
        """D_t `[B]` in nats from kl `[B, W]` and masked `[B, W]`; 0 over an empty scope."""
        counted = masked if self.scope == "masked" else jnp.ones_like(masked)
        kl = jnp.where(counted, kl, 0.0)
        if self.reduce == "max":
            return jnp.max(kl, axis=-1)
        total = jnp.sum(kl, axis=-1)
        if self.reduce == "sum":
            return total
        return total / jnp.maximum(jnp.sum(counted, axis=-1), 1)


@setting
class Refine:
    """How long beliefs are refined before tokens are committed.

    Refinement ends at the forward where D_t < tau, or at forward number `max_steps` of it (T_refine; the first counts),
    and that same forward commits (Eq. 7 holds for t = t*).

    Attributes:
      tau: settled below this, nats.
      max_steps: T_refine.
      before: "block", once at the start of a block; "commit", anew before every commit.
    """

    tau: float = 0.1
    max_steps: int = static(20)
    before: str = static("block")

    def __post_init__(self):
        check_range(self, "tau", 0)
        check_count(self, "max_steps")
        check_name(self, "before", ("block", "commit"))

    @classmethod
    def times(cls, k: int) -> "Refine":
        """`k` refinements before every commit (the paper's LFxk): nothing is below tau = 0, so all are run."""
        return cls(tau=0.0, max_steps=k + 1, before="commit")

    @classmethod
    def auto(cls, tau: float = 0.1, max_steps: int = 20) -> "Refine":
        """Refinement until settled before every commit (the paper's Auto)."""
        return cls(tau=tau, max_steps=max_steps, before="commit")


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
