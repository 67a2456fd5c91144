"""dKV-Cache-Greedy (arXiv 2505.15781): what is fed is what was just committed, what is next, and the masks around that.

The next positions must be known before the forward that commits them, so the commit rule must be one that plans them,
see `CommitRule.foresees`. Axes: B batch, L = prompt + canvas, W active window, n positions of one commit.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.fed import FedCache, mask_of, masked_places
from lrd_jax.decoding.parts.cache.refreshing import on_turn
from lrd_jax.decoding.setting import count, setting
from lrd_jax.errors import Refused


@setting
class DKVGreedy(FedCache):
    """dKV-Cache-Greedy: masked positions away from the next ones stay as they were until a refresh.

    Around each next position, in the order of their commits, the `window` nearest are fed that were masked a forward
    ago and are not fed already, left before right; where logits stand one to the left (Dream) the one before it too.

    Attributes:
      refresh_every: a row refreshes at the start of a block and, within it, whenever so many forwards have passed.
      window: masked positions that are fed around each of the next; 0: none.
    """

    text_name: ClassVar[str] = "dkv-greedy"
    refresh_every: int = count(default=2)
    window: int = count(default=4, low=0)

    def check_beside(self, config):
        if not config.commit.foresees:
            raise Refused(
                f"DecodeConfig.cache={self!r} feeds the positions that come next, and commit={config.commit!r} does "
                "not know them before a forward: take commit=RandomOrder()"
            )
        if config.refine is not None or config.stop is not None:
            raise Refused(
                f"DecodeConfig.cache={self!r} leaves most masked positions unread, so that their beliefs seem to stand "
                "still: leave out refine and stop, which go by that"
            )

    def asks(self, inputs):
        return on_turn(self.refresh_every, inputs.block_forwards)

    def fed(self, inputs, before):
        L = inputs.length
        begin = (inputs.prompt + inputs.block * inputs.window)[:, None]
        ahead = jnp.where(_ahead(inputs) < inputs.window, begin + _ahead(inputs), L)  # [B, n]
        coming = mask_of(ahead, L)
        fed = (before & ~masked_places(inputs)) | coming
        for i in range(ahead.shape[1]):
            fed |= self._around(ahead[:, i : i + 1], before & ~fed)
        return fed | jnp.pad(coming[:, 1:], ((0, 0), (0, 1))) if inputs.lead else fed

    def _around(self, at: jax.Array, candidates: jax.Array) -> jax.Array:
        """bool `[B, L]`: the candidates `[B, L]` nearest to places `[B, 1]`, none of a place beyond L."""
        L = candidates.shape[1]
        place = jnp.arange(L)
        turn = jnp.where(place < at, 2 * (at - place) - 1, 2 * (place - at))
        turn, nearest = jax.lax.top_k(-jnp.where(candidates & (at < L), turn, 3 * L), min(self.window, L))
        return mask_of(jnp.where(turn > -3 * L, nearest, L), L)

    def sizes(self, inputs):
        n = _ahead(inputs).shape[1]
        most = n * (2 + self.window + inputs.lead)
        return (min(most, inputs.masked.shape[1] + inputs.lead),)


def _ahead(inputs: Inputs) -> jax.Array:
    assert inputs.ahead is not None, "the commit rule foresees nothing"
    return inputs.ahead
