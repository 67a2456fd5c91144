"""Prompt + generation region: what a prompt must look like, and the active window of each row.

Axes: B batch, P prompt, G canvas, L = P + G, W active window (the current block).
"""

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.models import LogitAlignment, ModelConfig


def check_prompt(prompt, prompt_mask, gen_length: int, model: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Returns the prompt as int32 `[B, P]` and its mask as bool `[B, P]` (all True for None).

    Raises:
      ValueError: wrong shape or dtype, prompt + canvas over the model's context, or, where values are known (outside
        jit), a row without a token, padding that is not on the left, or ids outside the vocabulary; naming the row.
    """
    shape, dtype = np.shape(prompt), jnp.result_type(prompt)
    if len(shape) != 2 or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"prompt must be integer token ids [B, P], got {dtype} {list(shape)}; a single row is prompt[None]"
        )
    if 0 in shape:
        raise ValueError(f"prompt must hold at least one row of at least one token, got shape {list(shape)}")
    if shape[1] + gen_length > model.max_length:
        raise ValueError(
            f"prompt of {shape[1]} tokens + canvas of {gen_length} exceed the model's context of {model.max_length}; "
            f"shorten one of them by {shape[1] + gen_length - model.max_length}"
        )
    if prompt_mask is None:
        prompt_mask = np.ones(shape, bool)
    if np.shape(prompt_mask) != shape:
        raise ValueError(f"prompt_mask must have the prompt's shape {list(shape)}, got {list(np.shape(prompt_mask))}")
    if not any(isinstance(x, jax.core.Tracer) for x in (prompt, prompt_mask)):
        _check_values(np.asarray(prompt), np.asarray(prompt_mask).astype(bool), model.vocab_size)
    return jnp.asarray(prompt, jnp.int32), jnp.asarray(prompt_mask, bool)


def _check_values(prompt: np.ndarray, mask: np.ndarray, vocab_size: int) -> None:
    for row in np.flatnonzero(~mask.any(axis=1))[:1]:
        raise ValueError(f"prompt row {row} is empty: prompt_mask is False everywhere; give it at least one token")
    for row in np.flatnonzero((mask[:, :-1] & ~mask[:, 1:]).any(axis=1))[:1]:
        raise ValueError(f"prompt row {row} is padded on the right or inside; move the padding to the left")
    outside = mask & ((prompt < 0) | (prompt >= vocab_size))
    for row, column in np.argwhere(outside)[:1]:
        raise ValueError(
            f"prompt row {row} holds id {prompt[row, column]} at {column}, outside the vocabulary of {vocab_size}"
        )


def take_window(x: jax.Array, start: jax.Array, width: int) -> jax.Array:
    """x `[B, L, ...]` -> `[B, width, ...]`, each row from its own start `[B]`."""
    return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, width))(x, start)


def put_window(x: jax.Array, window: jax.Array, start: jax.Array) -> jax.Array:
    """The inverse of `take_window`: x with each row's window `[B, W, ...]` written at its start `[B]`."""
    return jax.vmap(lambda row, part, i: jax.lax.dynamic_update_slice_in_dim(row, part, i, 0))(x, window, start)


def logit_positions(start: jax.Array, alignment: LogitAlignment) -> jax.Array:
    """Where in prompt + canvas the hidden states begin that hold the logits of the window at `start` `[B]`.

    A prompt is never empty, so that a window's first position always has a position before it.
    """
    return start - 1 if alignment is LogitAlignment.SHIFTED else start
