"""WINO's wide commits: every sure position up to a cap, and those taken back that do not stand when looked at again.

Axes: B batch, W active window.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.rule import CommitRule, best
from lrd_jax.decoding.setting import Number, column, number, setting
from lrd_jax.decoding.sight import Change, Sight

_SHARE, _LEAST, _MOST = 0.7, 5, 20  # of the masked positions that one forward commits
_FIRST = 30  # what a block's first commit is taken to follow


@setting
class Capped(CommitRule):
    """Every masked position surer than `threshold`, up to a cap; the surest one where none is.

    ReMix's rule and the first half of WINO's. The cap is min(max(int(0.7 n), 5), 20) of n masked positions.

    Attributes:
      threshold: a position surer than this is committed.
    """

    threshold: Number = number(default=0.8, high=1)

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        return Change(widely(sight, self.threshold)), state


def widely(sight: Sight, threshold: Number) -> jax.Array:
    """bool `[B, W]`: what `Capped` commits."""
    confidence = sight.proposal.confidence
    masks = jnp.sum(sight.masked, axis=-1)
    cap = jnp.clip((_SHARE * masks).astype(jnp.int32), _LEAST, _MOST)
    sure = jnp.sum(sight.masked & (confidence > column(threshold)), axis=-1)
    return best(confidence, sight.masked, jnp.clip(sure, 1, cap))


@setting
class WINO(CommitRule):
    """WINO (arXiv 2507.18578): commits widely as `Capped` does, and masks again what its shadow does not bear out.

    Every committed position is looked at again on each later forward of its block, by a shadow to which the token is
    hidden (see `lrd_jax.decoding.parts.cache.shadow`). Where the token's probability there is below `threshold_back`
    the position is masked again: the least probable first, and at most one fewer than the forward before committed;
    none on a forward that commits a single position. A commit is first judged on the next forward; given tokens never
    are.

    What is taken back on a forward is less than what the one before committed. So each forward leaves at least one
    position for good, and a block of n ends within n of them.

    Attributes:
      threshold: a position surer than this is committed.
      threshold_back: a committed token less probable than this to its shadow is masked again; 0: none ever is.
    """

    threshold: Number = number(default=0.6, high=1)
    threshold_back: Number = number(default=0.9, high=1)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"shadow"})

    @property
    def reopens(self) -> bool:
        return True

    def start(self, rows: int, window: int) -> dict[str, jax.Array]:
        return {
            "judged": jnp.zeros((rows, window), bool),  # committed by this rule
            "last": jnp.full(rows, _FIRST, jnp.int32),  # positions that the forward before committed
        }

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        commit = widely(sight, self.threshold)
        accepted = jnp.sum(commit, axis=-1)
        judged = state["judged"] & ~sight.masked
        doubtful = judged & (sight.shadow < column(self.threshold_back))
        most = jnp.where(accepted > 1, state["last"] - 1, 0)
        reopen = best(-sight.shadow, doubtful, most)
        judged = (judged | commit) & ~reopen
        return Change(commit, reopen), {"judged": judged, "last": accepted.astype(jnp.int32)}
