"""DUS: a block in few rounds of positions that stand far apart.

Axes: B batch, W active window.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.rule import CommitRule, best
from lrd_jax.decoding.setting import Number, column, count, number, setting
from lrd_jax.decoding.sight import Change, Sight


@setting
class DUS(CommitRule):
    """Dilated unmasking (DUS, arXiv 2506.19037): what is committed at once stands far apart, and so depends little.

    A block of n positions takes R = ceil(log_base n) rounds, whatever its beliefs are. Round t = 1 .. R commits every
    position that is still masked and whose place in the block, from 0, is a multiple of max(1, n // base^t): with n = 8
    the places 0, 4, then 2, 6, then the rest. A round that holds nothing masked, of given tokens, is passed over.

    Attributes:
      base: how much denser each round is than the one before.
      threshold: smallest confidence of what a round commits; a doubtful position is left to the next round, but for the
        surest where all of a round's are. None: every one is committed.
    """

    base: int = count(default=2, low=2)
    threshold: Number | None = number(default=None, high=1)

    def start(self, rows: int, window: int) -> jax.Array:
        return jnp.ones(rows, jnp.int32)  # the next round

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        mine = self.rounds(sight)
        first = jnp.min(jnp.where(sight.masked, mine, sight.window), axis=-1)
        now = jnp.maximum(state, first)
        chosen = sight.masked & (mine <= now[:, None])
        if self.threshold is not None:
            confidence = sight.proposal.confidence
            sure = chosen & (confidence >= column(self.threshold))
            chosen = sure | best(confidence, chosen & ~jnp.any(sure, axis=-1, keepdims=True), 1)
        return Change(chosen), now + 1

    def rounds(self, sight: Sight) -> jax.Array:
        """int32 `[B, W]` or `[1, W]`: the round, from 1, in which each position's turn comes."""
        place = jnp.arange(sight.window)
        n = jnp.asarray(sight.width)
        turn = jnp.zeros((*n.shape, sight.window), jnp.int32)
        for t in range(self._rounds(sight.window), 0, -1):  # a place that several rounds hold is of the first
            apart = jnp.maximum(1, n // min(self.base**t, 2**31 - 1))
            turn = jnp.where(place % column(apart) == 0, t, turn)
        return turn.reshape(-1, sight.window)

    def _rounds(self, n: int) -> int:
        """R of a block of n positions: the least of base^R >= n, and at least 1."""
        t = 1
        while self.base**t < n:
            t += 1
        return t

    def max_commits(self, gen_length, block_length):
        return gen_length if self.threshold is not None else gen_length // block_length * self._rounds(block_length)
