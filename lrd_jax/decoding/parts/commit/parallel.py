"""Commit rules that take as many positions as the beliefs allow: Fast-dLLM's factor, a margin, EB-Sampler, KLASS.

Each commits at least one position a turn. Axes: B batch, W active window.
"""

from typing import ClassVar

import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.basic import CommitRule, best, ranks
from lrd_jax.decoding.setting import check_count, check_name, check_range, setting, static


@setting
class Factor(CommitRule):
    """Fast-dLLM's factor rule: with confidences c_(1) >= c_(2) >= ..., the largest n with (n + 1)(1 - c_(n)) < factor.

    The left side grows with n, so position of rank n is committed exactly where it meets the bound itself.
    """

    factor: float = 1.0

    def __post_init__(self):
        check_range(self, "factor", 0)

    def __call__(self, turn, state):
        rank = ranks(turn.belief.confidence, turn.masked)  # from 0
        within = (rank + 2) * (1.0 - turn.belief.confidence) < self.factor
        return turn.masked & (within | (rank == 0)), state


@setting
class Margin(CommitRule):
    """The masked position of largest margin p(best) - p(second best), and every other of at least `threshold`."""

    threshold: float = 0.8

    needs_margin: ClassVar[bool] = True

    def __post_init__(self):
        check_range(self, "threshold", 0)

    def __call__(self, turn, state):
        sure = turn.masked & (turn.belief.margin >= self.threshold)
        return sure | best(turn.belief.margin, turn.masked, 1), state


@setting
class EntropyBound(CommitRule):
    """EB-Sampler (arXiv 2505.24857): the longest prefix U of the masked positions, best first, with

        sum_{i in U} H_i - max_{i in U} H_i <= gamma,

    a bound on what is lost by committing them as if they were independent.

    Attributes:
      gamma: the bound, nats.
      order: what "best" means: "entropy" (lowest), "confidence" or "margin" (highest).
    """

    gamma: float = 0.1
    order: str = static("entropy")

    def __post_init__(self):
        check_range(self, "gamma", 0)
        check_name(self, "order", ("entropy", "confidence", "margin"))

    @property
    def needs_margin(self) -> bool:
        return self.order == "margin"

    def __call__(self, turn, state):
        entropy = turn.belief.entropy
        score = -entropy if self.order == "entropy" else getattr(turn.belief, self.order)
        rank = ranks(score, turn.masked)
        inside = (rank[:, None, :] <= rank[:, :, None]) & turn.masked[:, None, :]  # [B, i, j]: j is in i's prefix
        prefix = jnp.where(inside, entropy[:, None, :], 0.0)
        largest = jnp.arange(rank.shape[1]) == jnp.argmax(prefix, axis=-1, keepdims=True)
        bound = jnp.sum(jnp.where(largest, 0.0, prefix), axis=-1)  # never falls as a prefix grows
        return turn.masked & ((bound <= self.gamma) | (rank == 0)), state


@setting
class KLASS(CommitRule):
    """KLASS (arXiv 2511.05664): every masked position whose belief is sure and has stood still.

    A position is stable once its KL(p_t || p_{t-1}) was below `kl` on the last `patience` forwards. Stable positions of
    confidence above `confidence` are committed; where there are none, the `per_step` most confident ones are.
    """

    kl: float = 0.01
    confidence: float = 0.9
    patience: int = static(2)
    per_step: int = static(1)

    needs_kl: ClassVar[bool] = True

    def __post_init__(self):
        check_range(self, "kl", 0)
        check_range(self, "confidence", 0)
        check_count(self, "patience")
        check_count(self, "per_step")

    def start(self, batch, window):
        return jnp.zeros((batch, window), jnp.int32)  # forwards in a row with a small KL

    def observe(self, kl, calm):
        return jnp.where(kl < self.kl, calm + 1, 0)

    def __call__(self, turn, calm):
        stable = turn.masked & (calm >= self.patience) & (turn.belief.confidence > self.confidence)
        fallback = best(turn.belief.confidence, turn.masked, self.per_step)
        return jnp.where(jnp.any(stable, axis=-1, keepdims=True), stable, fallback), calm
