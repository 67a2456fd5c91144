"""One forward with a cache: a refresh of it, or the region of every row against it.

The two cost very different amounts of time, so rows never mix them: rows that ask for a refresh wait until all running
rows do, and then take it together. A row's own forwards are the same whoever else is in the batch; a batch pays for as
few refreshes as the row that needs most of them.

Axes: B batch, P prompt, G canvas, L = P + G, W active window, T recomputed positions, D embed.
"""

import functools

import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import logit_positions, take_window
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.state import DecodeState
from lrd_jax.models import KeyValues, positions_of
from lrd_jax.sharding import constrain_batch, constrain_cache


def waiting(config: DecodeConfig, state: DecodeState) -> jax.Array:
    """bool `[B]`: running rows that ask for a refresh while others do not, and so take no part in the next forward."""
    served = _served_by_cache(config, state)
    return state.running & ~served & jnp.any(served)


def _served_by_cache(config: DecodeConfig, state: DecodeState) -> jax.Array:
    return state.running & ~config.cache.asks(state.block_steps)


def cached_hidden(
    model, params, config: DecodeConfig, state: DecodeState, embeddings: jax.Array, mask: jax.Array
) -> tuple[jax.Array, KeyValues]:
    """Hidden states that hold the logits of each row's window.

    Args:
      embeddings: `[B, L, D]` of prompt and canvas; only those of the region are read unless this is a refresh.
      mask: bool `[B, L]`, False at padding.

    Returns:
      `[B, W, D]`, meaningless in rows that are `waiting`, and the cache for the next forward.
    """
    cache, W, blocks = config.cache, config.window, config.num_blocks
    L = embeddings.shape[1]
    P = L - config.gen_length
    stop = cache.stop(state.block, blocks)  # [B]
    seen_from = P + logit_positions(state.block * W, model.config.alignment)  # [B]
    lead = P - logit_positions(P, model.config.alignment)  # positions before a region that hold logits of it
    positions = positions_of(mask)

    def in_region(place):
        return (place >= P + state.block[:, None] * W) & (place < P + stop[:, None] * W)

    def refresh(_):
        hidden, fresh = model.hidden_and_cache(params, embeddings, positions, mask)
        return (
            jnp.bool_(False),
            take_window(constrain_batch(hidden), seen_from, W),
            constrain_cache(fresh, model.config),
        )

    def recompute(size):
        at, T = P + (stop - size) * W - lead, size * W + lead
        own = in_region(at[:, None] + jnp.arange(T))  # what is asked outside of its region keeps its cached keys
        kept = mask & ~in_region(jnp.arange(L)[None])
        x = constrain_batch(take_window(embeddings, at, T))
        visible = jnp.concatenate([kept, own], axis=1)
        hidden, _ = model.hidden_and_cache(params, x, take_window(positions, at, T), visible, kv)
        return take_window(constrain_batch(hidden), seen_from - at, W)

    served, sizes = _served_by_cache(config, state), cache.sizes(blocks)
    needed = jnp.max(jnp.where(served, stop - state.block, 1))
    smallest = jnp.sum(jnp.asarray(sizes) >= needed)  # counted from 1, as the branches below
    recomputes = jnp.any(served)
    # A loop of at most one turn: unlike a conditional, it hands the cache on in place where it makes no turn.
    unread = jnp.zeros((embeddings.shape[0], W, embeddings.shape[2]), embeddings.dtype)
    _, hidden, kv = jax.lax.while_loop(lambda carry: carry[0], refresh, (~recomputes, unread, state.cache))
    branches = [lambda: hidden, *(functools.partial(recompute, size) for size in sizes)]
    return jax.lax.switch(jnp.where(recomputes, smallest, 0), branches), kv
