"""Commit rules that look at one forward: the surest positions, and every one that is sure enough."""

from typing import Any

from lrd_jax.decoding.parts.commit.rule import CommitRule, best
from lrd_jax.decoding.setting import Number, column, count, number, setting
from lrd_jax.decoding.sight import Change, Sight


@setting
class LowestEntropy(CommitRule):
    """Eq. 7: the `per_step` masked positions of lowest entropy, plus every one whose confidence exceeds `threshold`.

    Attributes:
      per_step: positions that a forward commits at least.
      threshold: positions at least this sure are committed as well; None: no more.
    """

    per_step: int = count(default=1)
    threshold: Number | None = number(default=None, high=1)

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        belief = sight.proposal
        chosen = best(-belief.entropy, sight.masked, self.per_step)
        if self.threshold is not None:
            chosen |= sight.masked & (belief.confidence > column(self.threshold))
        return Change(chosen), state

    def plan(self, sight):
        return -(-sight.width // self.per_step) * sight.blocks


@setting
class Threshold(CommitRule):
    """Fast-dLLM: the most confident masked position, and every other of confidence >= `threshold`.

    Attributes:
      threshold: smallest confidence of a token that is not the forward's first.
    """

    threshold: Number = number(default=0.9, high=1)

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        confidence = sight.proposal.confidence
        sure = sight.masked & (confidence >= column(self.threshold))
        return Change(sure | best(confidence, sight.masked, 1)), state
