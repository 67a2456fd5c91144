"""The canvas behind the prompt, and the active window of each row.

Axes: B batch, L = prompt + canvas, W active window (the current block).
"""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.models import LogitAlignment


def take_window(x: jax.Array, start: jax.Array, width: int) -> jax.Array:
    """x `[B, L, ...]` -> `[B, width, ...]`, each row from its own start `[B]`."""
    return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, width))(x, start)


def put_window(x: jax.Array, window: jax.Array, start: jax.Array) -> jax.Array:
    """The inverse of `take_window`: x with each row's window `[B, W, ...]` written at its start `[B]`."""
    return jax.vmap(lambda row, part, i: jax.lax.dynamic_update_slice_in_dim(row, part, i, 0))(x, window, start)


def where_rows(rows: jax.Array, new: Any, old: Any) -> Any:
    """Per row `[B]`: new or old, for pytrees of arrays `[B, ...]`."""
    return jax.tree.map(lambda a, b: jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def lead_of(alignment: LogitAlignment) -> int:
    """How far to the left of a position its logits stand.

    A prompt is never empty, so that a window's first position always has a position before it.
    """
    return 1 if alignment is LogitAlignment.SHIFTED else 0
