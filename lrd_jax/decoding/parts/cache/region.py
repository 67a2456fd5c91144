"""Fast-dLLM's caches: a region is recomputed against the keys and values of an earlier forward.

A refresh fills a cache. Until the next one a forward recomputes only a **region** that begins with the active block.
Its positions see each other as they are now, and every other position as the refresh saw it.

Axes: B batch, P prompt, L = prompt + canvas, W active window, T recomputed positions, D embed.
"""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.refreshing import RefreshingCache, at_most_once, everything, of_window, on_turn
from lrd_jax.decoding.parts.cache.shadow import behind, cast
from lrd_jax.decoding.setting import count, setting
from lrd_jax.models import KeyValues
from lrd_jax.sharding import constrain_batch

_MOST_SIZES = 8  # each is compiled apart


class RegionCache(RefreshingCache):
    """A cache of keys and values that a refresh fills and a region reads.

    Attributes:
      refresh_every: a row refreshes at the start of a block and, within it, whenever so many forwards have passed;
        None: at the start of a block only.
    """

    refresh_every: int | None

    def stop(self, block: jax.Array, num_blocks: int) -> jax.Array:
        """int `[B]`: the first block after the region of a row whose active block is `block` `[B]`."""
        raise NotImplementedError

    def sizes(self, num_blocks: int) -> tuple[int, ...]:
        """The sizes of region that are compiled, in blocks, the largest first; a row's region may be part of one."""
        raise NotImplementedError

    @property
    def feeds_shadows(self) -> bool:
        return True

    def asks(self, inputs: Inputs) -> jax.Array:
        return on_turn(self.refresh_every, inputs.block_forwards)

    def empty(self, model: Denoiser, params: Any, batch: int, length: int) -> KeyValues:
        return model.empty_cache(params, batch, length)

    def forward(self, model: Denoiser, params: Any, inputs: Inputs, kept: KeyValues) -> tuple[jax.Array, KeyValues]:
        served = self.served(inputs)
        recomputes = jnp.any(served)
        unread = jnp.zeros((len(served), inputs.window, inputs.embeddings.shape[2]), inputs.embeddings.dtype)
        unread = behind(inputs.shadows, unread, unread)
        refresh = functools.partial(_refresh, model, params, inputs)
        hidden, kept = at_most_once(~recomputes, lambda carry: refresh(), (unread, kept))

        stop, sizes = self.stop(inputs.block, inputs.num_blocks), self.sizes(inputs.num_blocks)
        needed = jnp.max(jnp.where(served, stop - inputs.block, 1))
        smallest = jnp.sum(jnp.asarray(sizes) >= needed)  # counted from 1, as the branches below
        regions = [functools.partial(_recompute, model, params, inputs, kept, stop, size) for size in sizes]
        hidden = jax.lax.switch(jnp.where(recomputes, smallest, 0), [lambda: hidden, *regions])
        return hidden[:, :, None], kept


def _refresh(model: Denoiser, params: Any, inputs: Inputs) -> tuple[jax.Array, KeyValues]:
    """The window's hidden states `[B, W, D]` from a forward of everything, and its keys and values."""
    hidden, fresh = everything(model, params, inputs)
    return of_window(hidden, inputs), fresh


def _recompute(model: Denoiser, params: Any, inputs: Inputs, kept: KeyValues, stop: jax.Array, size: int) -> jax.Array:
    """Those hidden states from a forward of `size` blocks that end before block `stop` `[B]`."""
    P, W, L = inputs.prompt, inputs.window, inputs.embeddings.shape[1]

    def in_region(place):
        inside = (place >= P + inputs.block[:, None] * W) & (place < P + stop[:, None] * W)
        return inside if inputs.ends is None else inside & (place < inputs.ends[:, None])

    at, T = P + (stop - size) * W - inputs.lead, size * W + inputs.lead
    own = in_region(at[:, None] + jnp.arange(T))
    # What is asked outside of its region keeps its cached keys.
    others = inputs.visible & ~in_region(jnp.arange(L)[None])
    x = constrain_batch(take_window(inputs.embeddings, at, T))
    visible = jnp.concatenate([others, own], axis=1)
    rows, positions, mask = cast(inputs.shadows, x, take_window(inputs.positions, at, T), visible, at)
    hidden = constrain_batch(model.hidden_and_cache(params, rows, positions, mask, kept)[0])
    return behind(inputs.shadows, take_window(hidden, inputs.seen_from - at, W), hidden)


@setting
class PrefixCache(RegionCache):
    """Fast-dLLM's prefix cache: the active block and all after it are recomputed, prompt and blocks before it kept.

    A canvas of many blocks has a few sizes of region only; a forward takes the smallest that holds every row's.
    """

    text_name: ClassVar[str] = "prefix"
    refresh_every: int | None = count(default=None)

    def stop(self, block, num_blocks):
        return jnp.full_like(block, num_blocks)

    def sizes(self, num_blocks):
        most = min(num_blocks, _MOST_SIZES)
        return tuple(num_blocks - -(-i * num_blocks // most) for i in range(most))


@setting
class DualCache(RegionCache):
    """Fast-dLLM's dual cache: the active block alone is recomputed, all before and after it kept."""

    text_name: ClassVar[str] = "dual"
    refresh_every: int | None = count(default=None)

    def stop(self, block, num_blocks):
        return block + 1

    def sizes(self, num_blocks):
        return (1,)
