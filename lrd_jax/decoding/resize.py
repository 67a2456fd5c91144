"""A canvas takes another length while it decodes, and its contents other places.

Axes: B batch, G canvas.
"""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.model import Vocabulary
from lrd_jax.decoding.parts.length import OPEN, Resize
from lrd_jax.decoding.state import DecodeState


def resized(special: Vocabulary, state: DecodeState, resize: Resize) -> DecodeState:
    """The state with its canvas so; positions outside of the new length hold end-of-text and are not masked."""
    kept, at = resize.source >= 0, jnp.maximum(resize.source, 0)
    opened, end = resize.source == OPEN, jnp.asarray(resize.end)[..., None]
    tokens, masked = (jnp.take_along_axis(x, at, axis=1) for x in (state.tokens, state.masked))
    exists = jnp.arange(masked.shape[1]) < resize.length[:, None]
    tokens = jnp.where(kept, tokens, jnp.where(opened, special.mask_id, end))
    return state.replace(
        tokens=jnp.where(exists, tokens, special.eos_id).astype(jnp.int32),
        masked=jnp.where(kept, masked, opened) & exists,
        length=resize.length,
    )


def moves(state: DecodeState, resize: Resize) -> jax.Array:
    """bool `[B]`: rows in which something that was there comes to stand elsewhere, or goes."""
    place = jnp.arange(resize.source.shape[1])
    there = place < jnp.asarray(state.length)[:, None]
    return jnp.any(there & (resize.source != place), axis=-1)
