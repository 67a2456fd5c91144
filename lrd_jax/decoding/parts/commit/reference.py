"""The schedules of LLaDA's and Dream's own samplers: rules that plan how many tokens each forward commits.

Axes: B batch, W active window.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.rule import CommitRule, RuleAround, best
from lrd_jax.decoding.parts.commit.schedule import dream_fraction, llada_count
from lrd_jax.decoding.setting import Number, choice, column, count, number, part, setting
from lrd_jax.decoding.sight import Change, Sight
from lrd_jax.errors import Refused


class PlannedRule(CommitRule):
    """A rule that plans its forwards: `steps` for the whole canvas, shared evenly by its blocks; None: one a token."""

    steps: int | None

    def block_steps(self, sight: Sight) -> jax.Array | int:
        """`[B]` or one number: forwards planned for one block."""
        return sight.width if self.steps is None else self.steps // sight.blocks

    def planned(self, sight: Sight, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
        """LLaDA's plan of `masks` `[B]`, those of the block when it began: how many `[B]` this forward commits.

        Returns:
          That, and the masks, which the block's first commit counts.
        """
        masks = jnp.where(sight.commits == 0, jnp.sum(sight.masked, axis=-1), masks)
        return self.planned_at(sight, masks, sight.commits), masks

    def planned_at(self, sight: Sight, masks: jax.Array, commits: jax.Array) -> jax.Array:
        """How many `[B]` commit number `commits` `[B]` of the block takes; after its planned forwards one a forward."""
        steps = self.block_steps(sight)
        return jnp.where(commits < steps, llada_count(masks, steps, commits), 1)

    def plan(self, sight):
        return self.block_steps(sight) * sight.blocks

    def check_canvas(self, length, blocks):
        if self.steps is not None and self.steps % blocks:
            raise Refused(f"{type(self).__name__}.steps={self.steps} must be a multiple of the {blocks} blocks")

    def max_commits(self, gen_length, block_length):
        return max(self.steps or 0, gen_length)


@setting
class Scheduled(PlannedRule):
    """LLaDA: a fixed number of tokens each step, by confidence ("low_confidence") or anywhere ("random").

    n positions that are masked when a block begins are spread over its planned forwards: n // steps each, the remainder
    on the first ones; one a forward where more are needed.

    Attributes:
      steps: forwards for the whole canvas, shared evenly by its blocks; None: one a token.
      order: LLaDA's `remasking`.
    """

    steps: int | None = count(default=None)
    order: str = choice("low_confidence", "random", default="low_confidence")

    @property
    def draws(self) -> bool:
        return self.order == "random"

    def start(self, rows: int, window: int) -> jax.Array:
        return jnp.zeros(rows, jnp.int32)  # n

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        planned, n = self.planned(sight, state)
        score = sight.proposal.confidence
        if self.order == "random":
            score = jax.vmap(lambda key: jax.random.uniform(key, sight.masked.shape[1:]))(sight.keys)
        return Change(best(score, sight.masked, planned)), n


@setting
class Dream(PlannedRule):
    """Dream's orders with its own schedule: at step i, int(masks left * (1 - s/t)) tokens, all of them at the last.

    Attributes:
      alg: "maskgit_plus" (confidence), "topk_margin" (best minus second best), "entropy" (lowest first) or "origin"
        (each masked position on its own, with probability 1 - s/t).
      steps: forwards for the whole canvas, shared evenly by its blocks; None: one a token.
    """

    alg: str = choice("maskgit_plus", "topk_margin", "entropy", "origin", default="entropy")
    steps: int | None = count(default=None)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"filtered", "margin"} if self.alg == "topk_margin" else {"filtered"})

    @property
    def draws(self) -> bool:
        return self.alg == "origin"

    @property
    def idles(self) -> bool:
        return True

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        most = max(sight.window, self.steps or 0)
        fraction = dream_fraction(self.block_steps(sight), sight.commits, most=most)  # [B]
        if self.alg == "origin":
            return Change(sight.masked & (self.uniform(sight) < fraction[:, None])), state
        masks = jnp.sum(sight.masked, axis=-1).astype(jnp.float32)
        belief = sight.proposal
        score = {"maskgit_plus": belief.confidence, "topk_margin": belief.margin, "entropy": -belief.entropy}[self.alg]
        return Change(best(score, sight.masked, (masks * fraction).astype(jnp.int32))), state

    def uniform(self, sight: Sight) -> jax.Array:
        """The draws `[B, W]` of "origin"; a method of its own so that recorded draws can stand in for them."""
        return jax.vmap(lambda key: jax.random.uniform(key, sight.masked.shape[1:]))(sight.keys)


@setting
class DreamThreshold(PlannedRule):
    """Fast-dLLM's `confidence_threshold` for Dream: a budget a step, from which doubtful tokens are held back.

    Each step may commit n // steps of the block's n positions, plus those held back before: of the most confident ones,
    the first is always committed and the others if their confidence is at least `threshold`. After the planned steps
    the budget is what was held back, at least one.

    Attributes:
      threshold: smallest confidence of a token that is not the step's first.
      steps: forwards planned for the whole canvas, shared evenly by its blocks; None: one a token.
    """

    threshold: Number = number(default=0.9, high=1)
    steps: int | None = count(default=None)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"filtered"})

    def start(self, rows: int, window: int) -> jax.Array:
        return jnp.zeros(rows, jnp.int32)  # held back

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        planned, confidence = self.block_steps(sight), sight.proposal.confidence
        budget = state + jnp.where(sight.commits < planned, sight.width // planned, 0)
        first = best(confidence, sight.masked, 1)
        allowed = first | best(confidence, sight.masked, budget)
        chosen = allowed & (first | (confidence >= column(self.threshold)))
        return Change(chosen), jnp.sum(allowed & ~chosen, axis=-1).astype(jnp.int32)


@setting
class FirstThen(RuleAround):
    """A block's first forward commits its first position and no other, however sure; after it, another rule commits.

    Fast-dLLM's and Sparse-dLLM's loops for Dream do this: the first position's logits come from before the block.

    Attributes:
      rule: what chooses from the second forward on, and is asked on the first one too.
    """

    rule: CommitRule = part(CommitRule)

    @property
    def reopens(self) -> bool:
        return self.rule.reopens

    def start(self, rows: int, window: int) -> Any:
        return self.rule.start(rows, window)

    def observe(self, sight: Sight, state: Any) -> Any:
        return self.rule.observe(sight, state)

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        change, state = self.rule(sight, state)
        first = (sight.commits == 0)[:, None]
        only = sight.masked & (jnp.cumsum(sight.masked, axis=-1) == 1)
        reopen = None if change.reopen is None else change.reopen & ~first
        return Change(jnp.where(first, only, change.commit), reopen), state

    def max_commits(self, gen_length, block_length):
        return self.rule.max_commits(gen_length, block_length) + gen_length // block_length
