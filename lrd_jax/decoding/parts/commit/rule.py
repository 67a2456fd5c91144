"""What a commit rule is: a part that says which masked positions become tokens, and may open others again.

Axes: B batch, W active window.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.sight import Change, Sight


class CommitRule(Part):
    """What the loop asks of a rule, on every forward; its answer counts on those that may commit."""

    @property
    def draws(self) -> bool:
        """Whether the rule reads `Sight.keys`, so that a decode needs a key."""
        return False

    @property
    def reopens(self) -> bool:
        """Whether the rule may open committed positions again; `max_commits` must then bound it."""
        return False

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        """The positions to commit, all of them masked, and to reopen, none of them; and the new state."""
        raise NotImplementedError

    @property
    def idles(self) -> bool:
        """Whether it may commit nothing on a forward on which it could."""
        return False

    @property
    def foresees(self) -> bool:
        """Whether the rule knows before a forward what that one commits, see `ahead`."""
        return False

    def ahead(self, state: Any, blocks: int) -> jax.Array | None:
        """int32 `[B, n]`: places in the window of what the next forward commits, in order, then W; None: unknown.

        Before a block's first forward they may be unknown too. `blocks` are those of the whole canvas.
        """
        return None

    def max_commits(self, gen_length: int, block_length: int) -> int:
        """Most forwards on which a whole canvas can commit."""
        return gen_length

    def plan(self, sight: Sight) -> jax.Array | int:
        """`[B]` or one number: forwards planned for a row's whole canvas; without a plan one a position."""
        return sight.length

    def check_canvas(self, length: int, blocks: int) -> None:
        """Raises ValueError where the rule does not fit a canvas of so many positions and blocks."""


class RuleAround(CommitRule):
    """A rule around another: it reads and draws what that one does, and takes the canvases that it takes."""

    rule: CommitRule  # a field of those that are one

    @property
    def reads(self) -> frozenset[str]:
        return self.rule.reads

    @property
    def draws(self) -> bool:
        return self.rule.draws

    @property
    def idles(self) -> bool:
        return self.rule.idles

    def plan(self, sight):
        return self.rule.plan(sight)

    def check_canvas(self, length, blocks):
        self.rule.check_canvas(length, blocks)


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
