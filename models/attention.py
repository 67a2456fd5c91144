"""Bidirectional attention and rotary positions.

Axes: B batch, T query, S key, N heads, K kv heads, H head dim.
"""

import jax
import jax.numpy as jnp

SCORE_BYTES = 256 * 2**20  # of float32 attention scores at a time on CPU


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
      mask: bool `[B, S]`, True where a key may be seen. A row that may see nothing gets finite, meaningless values.
    """
    return jax.lax.platform_dependent(q, k, v, mask, cpu=_einsum_attention, default=_fused_attention)


def _einsum_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Heads before positions: on CPU both products then run as plain matmuls, about four times the fused op's speed.

    Row by row where the scores of all rows would be large.
    """
    B, T, N, H = q.shape
    if B > 1 and 4 * B * N * T * k.shape[1] > SCORE_BYTES:
        one = jax.lax.map(lambda row: _einsum_attention(*(x[None] for x in row)), (q, k, v, mask))
        return one[:, 0]
    K = k.shape[2]
    q = q.transpose(0, 2, 1, 3).reshape(B, K, N // K, T, H)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    scores = jnp.einsum("BKNTH,BKSH->BKNTS", q, k).astype(jnp.float32) * H**-0.5
    scores = jnp.where(mask[:, None, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("BKNTS,BKSH->BKNTH", weights, v)
    return out.reshape(B, N, T, H).transpose(0, 2, 1, 3)


def _fused_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])
