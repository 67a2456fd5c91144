"""Shadows of the window: what the model says of each position while the token that stands there is hidden (WINO).

A shadow is one more [MASK] row behind the others, and has no place in the sequence. Nothing that has one sees it. The
shadow of position i sees every shadow, its own too, and every position but i, so that its logits say what the model
would put at i beside all that is written elsewhere.

It stands where the logits of i stand, in Dream one to the left of i: there a row says what follows it, so the shadow of
i takes the rotation of i - 1, sees the token at i - 1 as any other, and i alone is hidden from it.

Axes: B batch, P prompt, L = prompt + canvas, W active window, T rows of a forward, S keys that they see, D embed.
"""

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import take_window
from lrd_jax.models import KeyValues


@flax.struct.dataclass
class Shadows:
    """The shadows of a window, as a forward meets them."""

    embeddings: jax.Array  # [B, W, D], [MASK] in every place
    positions: jax.Array  # [B, W] int32, of the rotation
    window: jax.Array  # [B] int32, place of the window among prompt and canvas


def cast(
    shadows: Shadows | None, rows: jax.Array, positions: jax.Array, visible: jax.Array, at: jax.Array | int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows of a forward with the shadows behind them; as they are where there are none.

    Args:
      rows, positions: `[B, T, D]` and `[B, T]`.
      visible: bool `[B, S]`, keys that every row sees; the last T of them are the rows' own.
      at: int32 `[B]` or one number, place of the first row among prompt and canvas.

    Returns:
      `[B, T + W, D]`, `[B, T + W]`, and the mask `[B, T + W, S + W]`.
    """
    if shadows is None:
        return rows, positions, visible
    (B, W), T, S = shadows.positions.shape, rows.shape[1], visible.shape[1]
    window = S - T + shadows.window - at  # its first key
    exists = jnp.broadcast_to(take_window(visible, window, W)[:, None], (B, W, W))
    hidden = jnp.arange(S) == (window[:, None] + jnp.arange(W))[..., None]  # [B, W, S]
    of_rows = jnp.broadcast_to(jnp.pad(visible, ((0, 0), (0, W)))[:, None], (B, T, S + W))
    of_shadows = jnp.concatenate([visible[:, None] & ~hidden, exists], axis=-1)
    return (
        jnp.concatenate([rows, shadows.embeddings], axis=1),
        jnp.concatenate([positions, shadows.positions], axis=1),
        jnp.concatenate([of_rows, of_shadows], axis=1),
    )


def behind(shadows: Shadows | None, wanted: jax.Array, hidden: jax.Array) -> jax.Array:
    """Hidden states that are wanted, `[B, R, D]`, and behind them the shadows' among those of a forward."""
    if shadows is None:
        return wanted
    return jnp.concatenate([wanted, hidden[:, -shadows.positions.shape[1] :]], axis=1)


def unshadowed(shadows: Shadows | None, cache: KeyValues) -> KeyValues:
    """Keys and values of a forward without those of the shadows, which nobody but they may see."""
    if shadows is None:
        return cache
    return jax.tree.map(lambda kept: kept[:, :, : -shadows.positions.shape[1]], cache)
