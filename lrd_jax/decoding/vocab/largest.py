"""The largest of a vocabulary of logits without looking at most of it: maxima of chunks first, then the best chunks.

On CPU a maximum is fast, and an argmax or a top_k over the whole vocabulary is many times slower. Elsewhere, and over
a vocabulary that is split over devices, gathering chunks costs more than it saves. Axes: V vocab, C chunks, K largest.
"""

import jax
import jax.numpy as jnp

CHUNK = 128  # logits
LARGEST = 64  # K: nuclei of trained models are mostly smaller
FEW = CHUNK * LARGEST  # a vocabulary of no more is looked at whole


def argmax(logits: jax.Array) -> jax.Array:
    """int32 `[...]`: the id of the largest logit of `[..., V]`, the lowest on a tie; any id beside a NaN."""
    if logits.shape[-1] <= FEW:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.lax.platform_dependent(
        logits, cpu=argmax_by_chunks, default=lambda x: jnp.argmax(x, axis=-1).astype(jnp.int32)
    )


def argmax_by_chunks(logits: jax.Array) -> jax.Array:
    """`argmax` by way of the chunk that holds it."""
    chunks = _chunked(logits)
    chunk = jnp.argmax(jnp.max(chunks, axis=-1), axis=-1)
    inside = jnp.argmax(_take(chunks, chunk[..., None])[..., 0, :], axis=-1)
    return (chunk * CHUNK + inside).astype(jnp.int32)


def largest(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The K = 64 largest logits of `[..., V]`, falling, and their ids, both `[..., K]`; V must be more than 8,192.

    No logit outside the K best chunks can be larger than the K-th. Which ids stand for logits that tie with the K-th is
    not defined.
    """
    chunks = _chunked(logits)
    best = jax.lax.top_k(jnp.max(chunks, axis=-1), LARGEST)[1]
    candidates = _take(chunks, best)
    values, where = jax.lax.top_k(candidates.reshape(*candidates.shape[:-2], FEW), LARGEST)
    return values, jnp.take_along_axis(best, where // CHUNK, axis=-1) * CHUNK + where % CHUNK


def _chunked(logits: jax.Array) -> jax.Array:
    """`[..., C, 128]`, filled up with -inf."""
    fill = [(0, 0)] * (logits.ndim - 1) + [(0, -logits.shape[-1] % CHUNK)]
    return jnp.pad(logits, fill, constant_values=-jnp.inf).reshape(*logits.shape[:-1], -1, CHUNK)


def _take(chunks: jax.Array, index: jax.Array) -> jax.Array:
    """Chunks `[..., K, 128]` at index `[..., K]`."""
    return jnp.take_along_axis(chunks, index[..., None], axis=-2)
