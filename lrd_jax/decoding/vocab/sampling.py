"""Choosing tokens from logits: suppressed tokens, temperature with Gumbel noise, Dream's top_p and top_k filters.

Axes: B batch, W active window, V vocab. Logits are float32.
"""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.vocab.nucleus import in_nucleus


def suppress(logits: jax.Array, ids: tuple[int, ...]) -> jax.Array:
    """Logits `[..., V]` with -inf at the given ids."""
    for i in ids:
        logits = logits.at[..., i].set(-jnp.inf)
    return logits


def filtered(logits: jax.Array, temperature, top_p, top_k: int | None) -> jax.Array:
    """Dream's `sample_tokens` before the draw: divide by the temperature, keep the nucleus of mass top_p, keep top_k.

    Args:
      logits: `[B, W, V]`.
      temperature: one number or one a row `[B]`; leaves the logits alone at 0.
      top_p, top_k: None leaves them alone; top_p may be one a row. Tokens that tie with the last one kept are kept.
    """
    temperature = jnp.asarray(temperature)[..., None, None]
    logits = logits / jnp.where(temperature > 0, temperature, 1.0)
    if top_p is not None:
        nucleus = in_nucleus(jax.nn.softmax(logits, axis=-1), jnp.asarray(top_p)[..., None])
        logits = jnp.where(nucleus, logits, -jnp.inf)
    if top_k is not None and top_k < logits.shape[-1]:
        floor = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= floor, logits, -jnp.inf)
    return logits


def draw(logits: jax.Array, keys: jax.Array) -> jax.Array:
    """One token a position, int32 `[B, W]`, from softmax(logits `[B, W, V]`) by the Gumbel maximum; keys `[B, W]`."""
    noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:], jnp.float32)))(keys)
    return jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)
