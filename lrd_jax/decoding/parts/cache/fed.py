"""Caches that feed some positions of a sequence, wherever they lie, and leave the others as they were last fed.

Keys, values and hidden states of all positions are kept. A forward computes the fed positions alone, which see each
other as they are now and every other position as it was when it was last fed; theirs then take the place of the old.
The belief about a position whose logits are not computed stands still.

Axes: B batch, L = prompt + canvas, W active window, T fed positions, D embed.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.refreshing import RefreshingCache, at_most_once, everything, of_window
from lrd_jax.models import KeyValues
from lrd_jax.sharding import constrain_batch


class Fed(flax.struct.PyTreeNode):
    """What the last forward that fed a position made of it, and which positions were masked a forward ago."""

    cache: KeyValues  # [layers, B, L, K, H]
    hidden: jax.Array  # [B, L, D]
    masked: jax.Array  # [B, L] bool, in the canvas of the row's last forward


class FedCache(RefreshingCache):
    """A cache that says which positions a forward feeds; a refresh feeds all."""

    def fed(self, inputs: Inputs, before: jax.Array) -> jax.Array:
        """bool `[B, L]`: what a forward feeds that is no refresh; before `[B, L]`, what was masked in the last one."""
        raise NotImplementedError

    def sizes(self, inputs: Inputs) -> tuple[int, ...]:
        """Numbers of fed positions that are compiled, the largest first; a forward takes the least that holds all."""
        raise NotImplementedError

    def empty(self, model: Denoiser, params: Any, batch: int, length: int) -> Fed:
        embedding = model.embed(params, jnp.int32(0))
        return Fed(
            cache=model.empty_cache(params, batch, length),
            hidden=jnp.zeros((batch, length, *embedding.shape), embedding.dtype),
            masked=jnp.zeros((batch, length), bool),
        )

    def row_axes(self, kept: Fed) -> Fed:
        return Fed(cache=KeyValues(1, 1), hidden=0, masked=0)  # type: ignore[arg-type]

    def forward(self, model: Denoiser, params: Any, inputs: Inputs, kept: Fed) -> tuple[jax.Array, Fed]:
        served = self.served(inputs)
        recomputes = jnp.any(served)
        fed = self.fed(inputs, kept.masked) & served[:, None]
        masked = jnp.where((served | ~recomputes)[:, None], masked_places(inputs), kept.masked)
        kept = at_most_once(~recomputes, lambda old: _refresh(model, params, inputs, old), kept)

        sizes = self.sizes(inputs)
        enough = jnp.sum(jnp.asarray(sizes) >= jnp.max(jnp.sum(fed, axis=-1))) - 1
        for i, size in enumerate(sizes):
            feed = functools.partial(_feed, model, params, inputs, fed, size)
            kept = at_most_once(recomputes & (enough == i), feed, kept)
        return of_window(kept.hidden, inputs)[:, :, None], kept.replace(masked=masked)


def masked_places(inputs: Inputs) -> jax.Array:
    """bool `[B, L]`: the masked positions of the whole sequence."""
    return jnp.pad(inputs.masked, ((0, 0), (inputs.prompt, 0)))


def fractions(most: int, count: int) -> tuple[int, ...]:
    """`most` and its parts in so many equal steps, the largest first."""
    return tuple(sorted({-(-most * i // count) for i in range(1, count + 1)}, reverse=True))


def _refresh(model: Denoiser, params: Any, inputs: Inputs, kept: Fed) -> Fed:
    hidden, cache = everything(model, params, inputs)
    return kept.replace(cache=cache, hidden=hidden)


def _feed(model: Denoiser, params: Any, inputs: Inputs, fed: jax.Array, size: int, kept: Fed) -> Fed:
    """What is kept after a forward of the `fed` positions `[B, L]`, of which no row has more than `size`."""
    at = places_of(fed, size)
    x, positions = constrain_batch(take_places(inputs.embeddings, at)), take_places(inputs.positions, at)
    visible = jnp.concatenate([inputs.visible & ~fed, at < inputs.length], axis=1)
    hidden, fresh = model.hidden_and_cache(params, x, positions, visible, kept.cache)
    rows = jnp.arange(len(at))[:, None]
    cache = jax.tree.map(lambda old, new: old.at[:, rows, at].set(new, mode="drop"), kept.cache, fresh)
    return kept.replace(cache=cache, hidden=kept.hidden.at[rows, at].set(constrain_batch(hidden), mode="drop"))


def places_of(chosen: jax.Array, size: int) -> jax.Array:
    """int32 `[B, size]`: the chosen places of `[B, L]` in order, then L."""
    L = chosen.shape[1]
    return jnp.sort(jnp.where(chosen, jnp.arange(L, dtype=jnp.int32), L), axis=1)[:, :size]


def take_places(x: jax.Array, at: jax.Array) -> jax.Array:
    """x `[B, L, ...]` at places `[B, T]`; beyond L its last."""
    return jax.vmap(lambda row, i: jnp.take(row, i, axis=0, mode="clip"))(x, at)


def mask_of(at: jax.Array, length: int) -> jax.Array:
    """bool `[B, L]`: which places `[B, T]` are; those beyond L are nowhere."""
    return jnp.zeros((len(at), length), bool).at[jnp.arange(len(at))[:, None], at].set(True, mode="drop")
