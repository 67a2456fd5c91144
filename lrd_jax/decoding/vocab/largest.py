"""The largest of a vocabulary of logits without looking at most of it: maxima of chunks first, then the best chunks.

On CPU a maximum is fast, and an argmax or a top_k over the whole vocabulary is many times slower. Elsewhere, and over
a vocabulary that is split over devices, gathering chunks costs more than it saves. Axes: V vocab, C chunks, K largest.
"""

import functools

import jax
import jax.numpy as jnp

from lrd_jax.models.maximum import maximum
from lrd_jax.sharding import vocab_is_split

CHUNK = 128  # logits
LARGEST = 64  # K: nuclei of trained models are mostly smaller
FEW = CHUNK * LARGEST  # a vocabulary of no more is looked at whole


def top(x: jax.Array) -> jax.Array:
    """The largest `[...]` of x `[..., V]`; no gradient may be wanted of it."""
    if vocab_is_split():
        return jnp.max(x, axis=-1)
    return jax.lax.platform_dependent(x, cpu=maximum, default=functools.partial(jnp.max, axis=-1))


def best(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest logit `[...]` of `[..., V]` and its id, int32, the lowest on a tie; any of them beside a NaN."""
    if logits.shape[-1] <= FEW or vocab_is_split():
        return best_of_all(logits)
    return jax.lax.platform_dependent(logits, cpu=best_by_chunks, default=best_of_all)


def best_of_all(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`best` of all logits at once."""
    return jnp.max(logits, axis=-1), jnp.argmax(logits, axis=-1).astype(jnp.int32)


def best_by_chunks(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`best` by way of the chunk that holds it."""
    chunks = _chunked(logits)
    chunk = jnp.argmax(top(chunks), axis=-1)
    inside = jnp.argmax(_take(chunks, chunk[..., None])[..., 0, :], axis=-1)
    token = (chunk * CHUNK + inside).astype(jnp.int32)
    return jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0], token


def largest(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The K = 64 largest logits of `[..., V]`, falling, and their ids, both `[..., K]`; V must be more than 8,192.

    No logit outside the K best chunks can be larger than the K-th. Which ids stand for logits that tie with the K-th is
    not defined.
    """
    chunks = _chunked(logits)
    likely = jax.lax.top_k(top(chunks), LARGEST)[1]
    candidates = _take(chunks, likely)
    values, where = jax.lax.top_k(candidates.reshape(*candidates.shape[:-2], FEW), LARGEST)
    return values, jnp.take_along_axis(likely, where // CHUNK, axis=-1) * CHUNK + where % CHUNK


def _chunked(logits: jax.Array) -> jax.Array:
    """`[..., C, 128]`, filled up with -inf."""
    fill = [(0, 0)] * (logits.ndim - 1) + [(0, -logits.shape[-1] % CHUNK)]
    return jnp.pad(logits, fill, constant_values=-jnp.inf).reshape(*logits.shape[:-1], -1, CHUNK)


def _take(chunks: jax.Array, index: jax.Array) -> jax.Array:
    """Chunks `[..., K, 128]` at index `[..., K]`."""
    return jnp.take_along_axis(chunks, index[..., None], axis=-2)
