"""Commit rules for beliefs that are fed back: commit what has settled, and take back what has changed.

Under strong feedback a belief that moves is still being worked out, and one that stands still is decided, however sure
it looked on the way: a confidence that has been fed back is no probability any more.

Axes: B batch, W active window.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.basic import Threshold
from lrd_jax.decoding.parts.commit.rule import CommitRule, RuleAround, best
from lrd_jax.decoding.setting import Number, column, count, number, part, setting
from lrd_jax.decoding.sight import Change, Sight


@setting
class All(CommitRule):
    """Every masked position at once: after `Refine`, the paper's first phase by itself, settle and then commit."""

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        return Change(sight.masked), state

    def max_commits(self, gen_length, block_length):
        return gen_length // block_length


@setting
class Settled(CommitRule):
    """Each masked position once its own belief has settled, while the others go on refining.

    A position has settled when its KL(p_t || p_{t-1}) was below `kl` on the last `patience` forwards and its confidence
    is above `confidence`. Where none has on `wait` forwards that could commit, the most confident one is committed.

    Attributes:
      kl: a belief that moves less than this stands still, nats.
      confidence: smallest confidence of what is committed; 0: none is asked.
      patience: forwards in a row that a belief must have stood still; 0: movement is not asked.
      wait: forwards that can commit, of which one at least does; 1 is one commit a forward.
    """

    kl: Number = number(default=0.01)
    confidence: Number = number(default=0.0, high=1)
    patience: int = count(default=1, low=0)
    wait: int = count(default=4)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"kl"})

    def start(self, rows: int, window: int) -> dict[str, jax.Array]:
        return {
            "calm": jnp.zeros((rows, window), jnp.int32),  # forwards in a row with a small KL
            "idle": jnp.zeros(rows, jnp.int32),  # forwards in a row that could commit and did not
        }

    def observe(self, sight: Sight, state: Any) -> dict[str, jax.Array]:
        return state | {"calm": jnp.where(sight.kl < column(self.kl), state["calm"] + 1, 0)}

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        confidence = sight.proposal.confidence
        chosen = sight.masked & (state["calm"] >= self.patience) & (confidence > column(self.confidence))
        none, idle = ~jnp.any(chosen, axis=-1), state["idle"] + 1
        forced = none & (idle >= self.wait)
        chosen |= forced[:, None] & best(confidence, sight.masked, 1)
        return Change(chosen), state | {"idle": jnp.where(none & ~forced, idle, 0)}

    def max_commits(self, gen_length, block_length):
        return self.wait * gen_length


@setting
class Reopening(RuleAround):
    """Another rule's commits, taken back where the model has come to think otherwise.

    A position that the rule committed, whose likeliest token is another one now with more confidence than `confidence`,
    is masked again, and feeds its belief back as every masked position does. Given positions stay, and so does a block
    that holds nothing masked any more.

    Attributes:
      rule: what commits, and may itself reopen others.
      confidence: smallest confidence of a token that takes the place of another.
      times: that a position is reopened at most, so that a decode ends.
    """

    rule: CommitRule = part(CommitRule, default=Threshold())
    confidence: Number = number(default=0.9, high=1)
    times: int = count(default=1)

    @property
    def reopens(self) -> bool:
        return True

    def start(self, rows: int, window: int) -> dict[str, Any]:
        return {
            "rule": self.rule.start(rows, window),
            "tokens": jnp.full((rows, window), -1, jnp.int32),  # that the rule committed; -1 elsewhere
            "left": jnp.full((rows, window), self.times, jnp.int32),  # times that a position may still be reopened
        }

    def observe(self, sight: Sight, state: Any) -> dict[str, Any]:
        return state | {"rule": self.rule.observe(sight, state["rule"])}

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        change, rule = self.rule(sight, state["rule"])
        belief, tokens, left = sight.belief, state["tokens"], state["left"]
        otherwise = (belief.token != tokens) & (belief.confidence > column(self.confidence))
        reopen = ~sight.masked & (tokens >= 0) & otherwise & (left > 0)
        tokens = jnp.where(change.commit, sight.proposal.token, tokens)
        left = left - reopen
        if change.reopen is not None:
            reopen |= change.reopen
        return Change(change.commit, reopen), {"rule": rule, "tokens": tokens, "left": left}

    def max_commits(self, gen_length, block_length):
        return self.rule.max_commits(gen_length, block_length) + self.times * gen_length * self.rule.max_commits(1, 1)
