"""Commit rules that take as many positions as the beliefs allow: Fast-dLLM's factor, a margin, EB-Sampler, KLASS.

Each commits at least one position a turn. Axes: B batch, W active window.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.reference import PlannedRule
from lrd_jax.decoding.parts.commit.rule import CommitRule, best, ranks
from lrd_jax.decoding.setting import Number, choice, column, count, flag, number, setting
from lrd_jax.decoding.sight import Change, Sight


@setting
class Factor(CommitRule):
    """Fast-dLLM's factor rule: with confidences c_(1) >= c_(2) >= ..., the largest n with (n + 1)(1 - c_(n)) < factor.

    The left side grows with n, so position of rank n is committed exactly where it meets the bound itself.

    Attributes:
      factor: the bound on doubt times tokens.
    """

    factor: Number = number(default=1.0)

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        confidence = sight.proposal.confidence
        rank = ranks(confidence, sight.masked)  # from 0
        within = (rank + 2) * (1.0 - confidence) < column(self.factor)
        return Change(sight.masked & (within | (rank == 0))), state


@setting
class Margin(CommitRule):
    """The masked position of largest margin p(best) - p(second best), and every other of at least `threshold`.

    Attributes:
      threshold: smallest margin of a token that is not the forward's first.
    """

    threshold: Number = number(default=0.8, high=1)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"margin"})

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        margin = sight.proposal.margin
        sure = sight.masked & (margin >= column(self.threshold))
        return Change(sure | best(margin, sight.masked, 1)), state


@setting
class EntropyBound(CommitRule):
    """EB-Sampler (arXiv 2505.24857): the longest prefix U of the masked positions, best first, with

        sum_{i in U} H_i - max_{i in U} H_i <= gamma,

    a bound on what is lost by committing them as if they were independent.

    Attributes:
      gamma: the bound, nats.
      order: what "best" means: "entropy" (lowest), "confidence" or "margin" (highest).
    """

    gamma: Number = number(default=0.1)
    order: str = choice("entropy", "confidence", "margin", default="entropy")

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"margin"} if self.order == "margin" else ())

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        belief = sight.proposal
        entropy = belief.entropy
        score = {"entropy": -entropy, "confidence": belief.confidence, "margin": belief.margin}[self.order]
        rank = ranks(score, sight.masked)
        inside = (rank[:, None, :] <= rank[:, :, None]) & sight.masked[:, None, :]  # [B, i, j]: j is in i's prefix
        prefix = jnp.where(inside, entropy[:, None, :], 0.0)
        largest = jnp.arange(rank.shape[1]) == jnp.argmax(prefix, axis=-1, keepdims=True)
        bound = jnp.sum(jnp.where(largest, 0.0, prefix), axis=-1)  # never falls as a prefix grows
        return Change(sight.masked & ((bound <= column(self.gamma)) | (rank == 0))), state


@setting
class KLASS(PlannedRule):
    """KLASS (arXiv 2511.05664): every masked position whose belief is sure and has stood still.

    A position is stable once its KL(p_t || p_{t-1}) was below `kl` on the last `patience` forwards. Stable positions of
    confidence above `confidence` are committed; where there are none, the most confident ones are.

    Attributes:
      kl: a belief that moves less than this stands still, nats.
      confidence: smallest confidence of a stable position that is committed.
      patience: forwards in a row that a belief must have stood still.
      per_step: positions that a forward commits where none is stable.
      steps: forwards planned for the whole canvas, from which that count follows as in `Scheduled`; None: it is
        `per_step`.
      strategy: which of the stable positions are committed: "all", or one, the most confident ("max_conf") or the one
        that moved least ("min_kl").
      at_least: a confidence of just `confidence` is enough, as in the published code for Dream; LLaDA's asks for more.
    """

    kl: Number = number(default=0.01)
    confidence: Number = number(default=0.9, high=1)
    patience: int = count(default=2)
    per_step: int = count(default=1)
    steps: int | None = count(default=None)
    strategy: str = choice("all", "max_conf", "min_kl", default="all")
    at_least: bool = flag(default=False)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"kl", "carried"})

    def start(self, rows: int, window: int) -> dict[str, jax.Array]:
        return {
            "calm": jnp.zeros((rows, window), jnp.int32),  # forwards in a row with a small KL
            "masks": jnp.zeros(rows, jnp.int32),  # when the block began
        }

    def observe(self, sight: Sight, state: Any) -> dict[str, jax.Array]:
        return state | {"calm": jnp.where(sight.kl < column(self.kl), state["calm"] + 1, 0)}

    def stable(self, sight: Sight, state: Any) -> jax.Array:
        """bool `[B, W]`: masked positions that have stood still and are sure."""
        confidence, enough = sight.proposal.confidence, column(self.confidence)
        sure = confidence >= enough if self.at_least else confidence > enough
        return sight.masked & (state["calm"] >= self.patience) & sure

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        confidence, stable = sight.proposal.confidence, self.stable(sight, state)
        if self.strategy != "all":
            stable = best(confidence if self.strategy == "max_conf" else -sight.kl, stable, 1)
        count_, masks = self.per_step, state["masks"]
        if self.steps is not None:
            count_, masks = self.planned(sight, masks)
        fallback = best(confidence, sight.masked, count_)
        chosen = jnp.where(jnp.any(stable, axis=-1, keepdims=True), stable, fallback)
        return Change(chosen), state | {"masks": masks}
