"""Bidirectional attention and rotary positions.

Axes: B batch, T query, S key, N heads, K kv heads, H head dim.
"""

import os

import jax
import jax.numpy as jnp

from lrd_jax.models.maximum import maximum

SCORE_BYTES = 3 * 2**19  # of float32 attention scores at a time and core on CPU, so that they stay in the core's cache


def rope_tables(positions: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """cos and sin of the half-split rotary embedding, float32 `[B, T, 1, H]`, for int32 positions `[B, T]`."""
    inverse = 1.0 / theta ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * inverse
    angles = jnp.concatenate([angles, angles], axis=-1)[:, :, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array, *, full_precision: bool) -> jax.Array:
    """Rotates heads `[B, T, N, H]`: in float32 (LLaDA), or with cos and sin cast to the dtype of x (Dream)."""
    dtype = x.dtype
    if full_precision:
        x = x.astype(jnp.float32)
    else:
        cos, sin = cos.astype(dtype), sin.astype(dtype)
    left, right = jnp.split(x, 2, axis=-1)
    return (x * cos + jnp.concatenate([-right, left], axis=-1) * sin).astype(dtype)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax attention of q `[B, T, N, H]` over k, v `[B, S, K, H]`; returns `[B, T, N, H]`, softmax in float32.

    Args:
      mask: bool, broadcasts to `[B, T, S]`, True where a query may see a key. A query that may see nothing gets finite,
        meaningless values.
    """
    return jax.lax.platform_dependent(q, k, v, mask, cpu=_einsum_attention, default=_fused_attention)


def _einsum_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Heads before positions: on CPU both products then run as plain matmuls, about four times the fused op's speed.

    The kv heads of all rows are one axis, taken a few at a time.
    """
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    q = q.transpose(0, 2, 1, 3).reshape(B * K, N // K, T, H)
    k, v = (x.transpose(0, 2, 1, 3).reshape(B * K, S, H) for x in (k, v))
    mask = jnp.repeat(jnp.broadcast_to(mask, (B, *mask.shape[1:])), K, axis=0)
    at_once = max(1, SCORE_BYTES * (os.cpu_count() or 1) // (4 * (N // K) * T * S))
    if at_once < B * K:
        out = jax.lax.map(lambda head: _one_head(*head), (q, k, v, mask), batch_size=at_once)
    else:
        out = jax.vmap(_one_head)(q, k, v, mask)
    return out.reshape(B, N, T, H).transpose(0, 2, 1, 3)


def _one_head(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """`[M, T, H]` of the M query heads q `[M, T, H]` that share a kv head k, v `[S, H]`; mask `[T, S]` or `[1, S]`."""
    scores = jnp.einsum("MTH,SH->MTS", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - maximum(scores)[..., None])
    weights = (weights / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype)
    return jnp.einsum("MTS,SH->MTH", weights, v)


def _fused_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
