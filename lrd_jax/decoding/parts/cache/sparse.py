"""Sparse-dLLM (arXiv 2508.02558): a block sees a share of the positions around it, those that its queries look at most.

The first two forwards of a block are refreshes; the second one says what is kept, for every block of the network by
itself. From then on the active block alone is computed. Nothing outlives it.

Axes: B batch, P prompt, L = prompt + canvas, W active window, M = L - W the rest, S kept positions, N heads, K kv
heads.
"""

import functools
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.fed import take_places
from lrd_jax.decoding.parts.cache.refreshing import RefreshingCache, at_most_once, of_window
from lrd_jax.decoding.setting import count, setting, share
from lrd_jax.errors import Refused
from lrd_jax.models import KeyValues
from lrd_jax.models.attention import attention
from lrd_jax.models.transformer import joined
from lrd_jax.sharding import constrain_batch

_NOWHERE = -1


class Kept(flax.struct.PyTreeNode):
    """What a block sees around it; the most important first."""

    cache: KeyValues  # [layers, B, S, K, H]
    places: jax.Array  # [layers, B, S] int32 in the whole sequence; -1 where a row keeps fewer


@setting
class SparseCache(RefreshingCache):
    """Sparse-dLLM: outside the active block `int(keep_ratio * positions)` keys and values are kept, the rest is unseen.

    A position is as important as its key is near the block's queries, their mean over the block and over heads; and as
    its most important neighbour within the kernel, where neighbours of the block are neighbours of each other.

    Attributes:
      keep_ratio: the share of the positions outside the block that it sees.
      kernel_size: odd; 1: a position's own importance alone.
    """

    text_name: ClassVar[str] = "sparse"
    keep_ratio: float = share(default=0.5)
    kernel_size: int = count(default=3)

    def __post_init__(self):
        if self.kernel_size % 2 == 0:
            raise Refused(f"SparseCache.kernel_size={self.kernel_size} must be odd: as many neighbours left as right")

    @property
    def keeps_positions(self):
        return False

    def asks(self, inputs):
        return inputs.block_forwards < 2

    def empty(self, model: Denoiser, params: Any, batch: int, length: int) -> Kept:
        cache = model.empty_cache(params, batch, int(self.keep_ratio * length))
        return Kept(cache=cache, places=jnp.full(cache.keys.shape[:3], _NOWHERE, jnp.int32))

    def row_axes(self, kept: Kept) -> Kept:
        return jax.tree.map(lambda _: 1, kept)

    def forward(self, model: Denoiser, params: Any, inputs: Inputs, kept: Kept) -> tuple[jax.Array, Kept]:
        recomputes = jnp.any(self.served(inputs))
        unread = jnp.zeros((len(inputs.block), inputs.window, inputs.embeddings.shape[2]), inputs.embeddings.dtype)
        refresh = functools.partial(self._refresh, model, params, inputs)
        hidden, kept = at_most_once(~recomputes, refresh, (unread, kept))
        block = functools.partial(_block, model, params, inputs)
        hidden, kept = at_most_once(recomputes, block, (hidden, kept))
        return hidden[:, :, None], kept

    def _refresh(self, model: Denoiser, params: Any, inputs: Inputs, carry: tuple[jax.Array, Kept]) -> tuple[Any, Kept]:
        """The window's hidden states from a forward of everything, and what the block is to see from its third on."""
        size = carry[1].places.shape[-1]

        def attend(q, k, v, cache):
            importance, rest = self._importance(inputs, q, k)
            at, places = self._most_important(inputs, importance, rest, size)
            seen = attention(q, k, v, inputs.visible[:, None])
            return seen, Kept(cache=KeyValues(take_places(k, at), take_places(v, at)), places=places)

        x = constrain_batch(inputs.embeddings)
        hidden, kept = model.layers(params, x, inputs.positions, attend, None)
        return of_window(constrain_batch(hidden), inputs), kept

    def _importance(self, inputs: Inputs, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """float32 `[B, M]` of the positions outside the block, -inf where none is to be seen; and their places."""
        P, W, L = inputs.prompt, inputs.window, inputs.length
        B, _, N, H = q.shape
        begin = P + inputs.block * W
        own = take_window(q, begin, W).astype(jnp.float32)
        exists = take_window(inputs.visible, begin, W)[:, :, None, None]
        mean = jnp.sum(jnp.where(exists, own, 0.0), axis=1) / jnp.sum(exists, axis=1)  # [B, N, H]
        mean = jnp.sum(mean.reshape(B, k.shape[2], -1, H), axis=2) / N  # over the heads that share a key
        place = jnp.arange(L - W)
        rest = place + W * (place >= begin[:, None])
        importance = jnp.einsum("BKH,BSKH->BS", mean, k.astype(jnp.float32))
        importance = take_places(jnp.where(inputs.visible, importance, -jnp.inf), rest)
        return jnp.where(jnp.isinf(importance), importance, self.pooled(importance)), rest

    def pooled(self, importance: jax.Array) -> jax.Array:
        """`[B, M]`: the largest within the kernel around each."""
        return jax.lax.reduce_window(importance, -jnp.inf, jax.lax.max, (1, self.kernel_size), (1, 1), "SAME")

    def keeps(self, there: jax.Array, most: int) -> jax.Array:
        """int `[B]`: how many positions a row keeps of those that are there `[B]`, at most so many."""
        return jnp.asarray(np.array([int(n * self.keep_ratio) for n in range(most + 1)]))[there]

    def _most_important(
        self, inputs: Inputs, importance: jax.Array, rest: jax.Array, size: int
    ) -> tuple[jax.Array, jax.Array]:
        """int32 `[B, S]`: where the most important positions are, and the same with -1 behind what a row may keep."""
        M = rest.shape[1]
        most = int(M * self.keep_ratio)
        at = take_places(rest, jax.lax.top_k(importance, most)[1])
        keeps = self.keeps(jnp.sum(importance > -jnp.inf, axis=-1), M)
        places = jnp.where(jnp.arange(most) < keeps[:, None], at, _NOWHERE)
        pad = ((0, 0), (0, size - most))
        return jnp.pad(at, pad), jnp.pad(places, pad, constant_values=_NOWHERE)


def _block(model: Denoiser, params: Any, inputs: Inputs, carry: tuple[jax.Array, Kept]) -> tuple[jax.Array, Kept]:
    """The window's hidden states from a forward of the active block, and of the place of its first logits."""
    kept, lead = carry[1], inputs.lead
    at, T = inputs.prompt + inputs.block * inputs.window - lead, inputs.window + lead
    own = take_window(inputs.visible, at, T) & (jnp.arange(T) >= lead)

    def attend(q, k, v, cache):
        visible = jnp.concatenate([cache.places != _NOWHERE, own], axis=1)
        return attention(q, *joined(cache.cache, k, v), visible[:, None]), None

    x, positions = take_window(inputs.embeddings, at, T), take_window(inputs.positions, at, T)
    hidden, _ = model.layers(params, constrain_batch(x), positions, attend, kept)
    return take_window(constrain_batch(hidden), inputs.seen_from - at, inputs.window), kept
