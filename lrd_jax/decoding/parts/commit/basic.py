"""Which masked positions become tokens: every commit rule, each a frozen dataclass with one method.

A rule sees one `Turn` (a forward on which the row may commit) and says which positions to commit. Rules that remember
something between turns carry it in a state of their own. Axes: B batch, W active window.
"""

from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.schedule import dream_fractions, llada_counts
from lrd_jax.decoding.setting import check_count, check_name, check_range, setting, static
from lrd_jax.decoding.vocab.belief import Belief


@flax.struct.dataclass
class Turn:
    """What a commit rule may look at."""

    masked: jax.Array  # [B, W] bool, masked before this commit
    belief: Belief  # of this forward
    number: jax.Array  # [B] int32, turns that the row has had in this block
    keys: jax.Array  # [B] one random key a row, fresh on every forward
    num_blocks: int = flax.struct.field(pytree_node=False)


class CommitRule:
    """What the loop asks of a rule. The defaults suit a rule that remembers nothing."""

    reads_filtered: ClassVar[bool] = False  # belief of the tempered, filtered logits (Dream), not the model's own
    needs_margin: ClassVar[bool] = False  # belief.margin must be filled
    needs_kl: ClassVar[bool] = False  # `observe` must be told the KL of every position

    def start(self, batch: int, window: int) -> Any:
        """The rule's state at the start of a block: a pytree of arrays `[B, ...]`."""
        return ()

    def observe(self, kl: jax.Array, state: Any) -> Any:
        """The state after a forward, refining ones too; kl `[B, W]` nats, +inf on a block's first forward."""
        return state

    def __call__(self, turn: Turn, state: Any) -> tuple[jax.Array, Any]:
        """bool `[B, W]`, the positions to commit, all of them masked; and the new state."""
        raise NotImplementedError

    def wants_more(self, turn: Turn) -> jax.Array | None:
        """bool `[B]` where the block goes on with nothing masked any more, as some references do; None: never."""
        return None

    def max_turns(self, gen_length: int, block_length: int) -> int:
        """Most turns that a whole canvas can take."""
        return gen_length

    def check_canvas(self, gen_length: int, block_length: int) -> None:
        """Raises ValueError where the rule does not fit the canvas."""


def ranks(score: jax.Array, masked: jax.Array) -> jax.Array:
    """int `[B, W]`: 0 for the masked position of highest score, lowest index on a tie; the committed come last."""
    score = jnp.where(masked, score, -jnp.inf)
    position = jnp.arange(score.shape[-1])
    earlier = position[None, :] < position[:, None]
    # A position's rank is how many go before it: W^2 comparisons, which fuse, where two sorts would not.
    mine, other = score[:, :, None], score[:, None, :]
    return jnp.sum((other > mine) | ((other == mine) & earlier), axis=-1)


def best(score: jax.Array, masked: jax.Array, count: jax.Array | int) -> jax.Array:
    """bool `[B, W]`: the `count` (`[B]` or one number) masked positions of highest score, lowest index on a tie."""
    return (ranks(score, masked) < jnp.broadcast_to(jnp.asarray(count), masked.shape[:1])[:, None]) & masked


@setting
class LowestEntropy(CommitRule):
    """Eq. 7: the `per_step` masked positions of lowest entropy, plus every one whose confidence exceeds `threshold`."""

    per_step: int = static(1)
    threshold: float | None = None

    def __post_init__(self):
        check_count(self, "per_step")
        check_range(self, "threshold", 0)

    def __call__(self, turn, state):
        chosen = best(-turn.belief.entropy, turn.masked, self.per_step)
        if self.threshold is not None:
            chosen |= turn.masked & (turn.belief.confidence > self.threshold)
        return chosen, state


@setting
class Threshold(CommitRule):
    """Fast-dLLM: the most confident masked position, and every other of confidence >= `threshold`."""

    threshold: float = 0.9

    def __post_init__(self):
        check_range(self, "threshold", 0)

    def __call__(self, turn, state):
        sure = turn.masked & (turn.belief.confidence >= self.threshold)
        return sure | best(turn.belief.confidence, turn.masked, 1), state


class PlannedRule(CommitRule):
    """A rule that plans its forwards: `steps` for the whole canvas, shared evenly by its blocks; None: one a token."""

    steps: int | None

    def block_steps(self, turn: Turn) -> int:
        """Forwards planned for one block."""
        return self.steps // turn.num_blocks if self.steps else turn.masked.shape[1]

    def check_canvas(self, gen_length, block_length):
        num_blocks = gen_length // block_length
        if self.steps is not None and self.steps % num_blocks:
            raise ValueError(f"{type(self).__name__}.steps={self.steps} must be a multiple of the {num_blocks} blocks")

    def max_turns(self, gen_length, block_length):
        return max(self.steps or 0, gen_length)


@setting
class Scheduled(PlannedRule):
    """LLaDA: a fixed number of tokens each step, by confidence ("low_confidence") or anywhere ("random").

    Attributes:
      steps: forwards for the whole canvas, shared evenly by its blocks; None: one a token.
      order: LLaDA's `remasking`.
      spend_all: run all steps of a block even after its last token (the reference does, where steps exceed tokens).
    """

    steps: int | None = static(None)
    order: str = static("low_confidence")
    spend_all: bool = static(False)

    def __post_init__(self):
        check_count(self, "steps")
        check_name(self, "order", ("low_confidence", "random"))

    def __call__(self, turn, state):
        steps = self.block_steps(turn)
        counts = jnp.asarray(llada_counts(turn.masked.shape[1], steps))
        count = jnp.where(turn.number < steps, counts[jnp.minimum(turn.number, steps - 1)], 1)
        score = turn.belief.confidence
        if self.order == "random":
            score = jax.vmap(lambda key: jax.random.uniform(key, turn.masked.shape[1:]))(turn.keys)
        return best(score, turn.masked, count), state

    def wants_more(self, turn):
        return turn.number + 1 < self.block_steps(turn) if self.spend_all else None


@setting
class Dream(PlannedRule):
    """Dream's orders with its own schedule: at step i, int(masks left * (1 - s/t)) tokens, all of them at the last.

    Attributes:
      alg: "maskgit_plus" (confidence), "topk_margin" (best minus second best), "entropy" (lowest first) or "origin"
        (each masked position on its own, with probability 1 - s/t).
      steps: forwards for the whole canvas, shared evenly by its blocks; None: one a token.
    """

    alg: str = static("entropy")
    steps: int | None = static(None)

    reads_filtered: ClassVar[bool] = True

    def __post_init__(self):
        check_name(self, "alg", ("maskgit_plus", "topk_margin", "entropy", "origin"))
        check_count(self, "steps")

    @property
    def needs_margin(self) -> bool:
        return self.alg == "topk_margin"

    def __call__(self, turn, state):
        steps = self.block_steps(turn)
        fraction = jnp.asarray(dream_fractions(steps))[jnp.minimum(turn.number, steps - 1)]  # [B]
        if self.alg == "origin":
            return turn.masked & (self.uniform(turn) < fraction[:, None]), state
        masks = jnp.sum(turn.masked, axis=-1).astype(jnp.float32)
        count = (masks * fraction).astype(jnp.int32)
        score = {
            "maskgit_plus": turn.belief.confidence,
            "topk_margin": turn.belief.margin,
            "entropy": -turn.belief.entropy,
        }[self.alg]
        return best(score, turn.masked, count), state

    def uniform(self, turn: Turn) -> jax.Array:
        """The draws `[B, W]` of "origin"; a method of its own so that recorded draws can stand in for them."""
        return jax.vmap(lambda key: jax.random.uniform(key, turn.masked.shape[1:]))(turn.keys)


@setting
class DreamThreshold(PlannedRule):
    """Fast-dLLM's `confidence_threshold` for Dream: a budget a step, from which doubtful tokens are held back.

    Each step may commit masks // steps tokens plus those held back before: of the most confident ones, the first is
    always committed and the others if their confidence is at least `threshold`. After the planned steps the budget is
    what was held back, at least one.

    Attributes:
      threshold: smallest confidence of a token that is not the step's first.
      steps: forwards planned for the whole canvas, shared evenly by its blocks; None: one a token.
    """

    threshold: float = 0.9
    steps: int | None = static(None)

    reads_filtered: ClassVar[bool] = True

    def __post_init__(self):
        check_range(self, "threshold", 0)
        check_count(self, "steps")

    def start(self, batch, window):
        return jnp.zeros(batch, jnp.int32)  # held back

    def __call__(self, turn, held):
        planned = self.block_steps(turn)
        budget = held + jnp.where(turn.number < planned, turn.masked.shape[1] // planned, 0)
        first = best(turn.belief.confidence, turn.masked, 1)
        allowed = first | best(turn.belief.confidence, turn.masked, budget)
        chosen = allowed & (first | (turn.belief.confidence >= self.threshold))
        return chosen, jnp.sum(allowed & ~chosen, axis=-1).astype(jnp.int32)


@setting
class AsFastDLLM(CommitRule):
    """A rule as Fast-dLLM's published cached loops run it, call by call; for parity, and only slower.

    After the full forward that begins a block they always call the model once more, even where nothing is left masked.

    Attributes:
      rule: what chooses the positions.
      dream: the loop for Dream: that full forward commits the block's first position and no other, however sure, and
        the rule reads the tempered, filtered beliefs (its `top_k` is 50 where the caller says nothing).
    """

    rule: CommitRule = Threshold()
    dream: bool = static(False)

    @property
    def reads_filtered(self) -> bool:
        return self.dream or self.rule.reads_filtered

    @property
    def needs_margin(self) -> bool:
        return self.rule.needs_margin

    @property
    def needs_kl(self) -> bool:
        return self.rule.needs_kl

    def start(self, batch, window):
        return self.rule.start(batch, window)

    def observe(self, kl, state):
        return self.rule.observe(kl, state)

    def __call__(self, turn, state):
        chosen, state = self.rule(turn, state)
        if self.dream:
            only = turn.masked & (jnp.arange(turn.masked.shape[1]) == 0)
            chosen = jnp.where((turn.number == 0)[:, None], only, chosen)
        return chosen, state

    def wants_more(self, turn):
        more = self.rule.wants_more(turn)
        return turn.number == 0 if more is None else more | (turn.number == 0)

    def max_turns(self, gen_length, block_length):
        return self.rule.max_turns(gen_length, block_length) + gen_length // block_length

    def check_canvas(self, gen_length, block_length):
        self.rule.check_canvas(gen_length, block_length)
