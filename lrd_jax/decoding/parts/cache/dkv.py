"""dKV-Cache (arXiv 2505.15781): the keys and values of a token are kept one forward after it was committed.

A token changes most when it takes the place of its mask, so the forward after its commit still feeds it, and none after
that until the next refresh. Masked positions are fed always. Axes: B batch, L = prompt + canvas.
"""

from typing import ClassVar

import jax.numpy as jnp

from lrd_jax.decoding.parts.cache.fed import FedCache, fractions, masked_places
from lrd_jax.decoding.parts.cache.refreshing import on_turn
from lrd_jax.decoding.setting import choice, count, setting

_MOST_SIZES = 4  # each is compiled apart


@setting
class DKVCache(FedCache):
    """dKV-Cache-Decode: what was masked in the forward before is fed, all else kept.

    Where logits stand on the position itself (LLaDA) the first two forwards of a block are refreshes. Where they stand
    one to the left (Dream) the first one is, and what is fed for a masked position is the one before it:

    - shift "un": that one alone. A masked position whose right neighbour is a token is then not fed, and neither is the
      row's last position from the third forward of a block on.
    - shift "un_right": the masked position as well.

    Attributes:
      refresh_every: a row refreshes at the start of a block and, within it, whenever so many forwards have passed.
      shift: what is fed for a masked position of Dream.
    """

    text_name: ClassVar[str] = "dkv"
    refresh_every: int = count(default=8)
    shift: str = choice("un", "un_right", default="un")

    def asks(self, inputs):
        on_time = on_turn(self.refresh_every, inputs.block_forwards)
        return on_time if inputs.lead else on_time | (inputs.block_forwards < 2)

    def fed(self, inputs, before):
        # What has been opened again since is fed too.
        return self._feeding(inputs, before) | self._feeding(inputs, masked_places(inputs))

    def _feeding(self, inputs, masked):
        """bool `[B, L]`: what is fed for masked positions `[B, L]`."""
        if not inputs.lead:
            return masked
        predicting = jnp.pad(masked[:, 1:], ((0, 0), (0, 1)))
        if self.shift == "un":
            return predicting | (masked & inputs.last & (inputs.block_forwards == 1)[:, None])
        before_last = jnp.pad(masked[:, :-1], ((0, 0), (1, 0))) & inputs.last
        return predicting | masked | before_last

    def sizes(self, inputs):
        return fractions(inputs.masked.shape[1] + inputs.lead, _MOST_SIZES)


@setting
class DKVPrefill(FedCache):
    """dKV-Cache-Prefill: the prompt's keys and values are those of a row's first forward, the canvas is always fed.

    Where logits stand one to the left (Dream) so is the prompt's last position.
    """

    text_name: ClassVar[str] = "dkv-prefill"

    @property
    def reaches_canvas(self):
        return True

    def asks(self, inputs):
        return inputs.forwards == 0

    def fed(self, inputs, before):
        canvas = (jnp.arange(inputs.length) >= inputs.prompt - inputs.lead)[None]
        exists = inputs.exists
        return canvas if exists is None else canvas & exists

    def sizes(self, inputs):
        return (inputs.masked.shape[1] + inputs.lead,)
