"""How many tokens LLaDA and Dream commit at each step. Axes: B batch."""

import jax
import jax.numpy as jnp
import numpy as np


def llada_count(masks: jax.Array, steps: jax.Array | int, step: jax.Array) -> jax.Array:
    """int32 `[B]`: masks // steps at every step, one more on the first masks % steps of them (LLaDA, generate).

    Args:
      masks: `[B]`, masked when the block began.
      steps: planned for the block, `[B]` or one number.
      step: `[B]`, from 0.
    """
    return (masks // steps + (step < masks % steps)).astype(jnp.int32)


def dream_fractions(steps: int, eps: float = 1e-3) -> np.ndarray:
    """Share of the masks left that each step commits, float32 `[steps]`: 1 - s/t on linspace(1, eps), 1 at the last.

    float32 throughout, as in Dream's `_sample`: the count is `int(masks * fraction)` and rounding decides it.
    """
    t = np.linspace(1.0, eps, steps + 1, dtype=np.float32)
    fractions = np.float32(1.0) - t[1:] / t[:-1]
    fractions[-1] = 1.0
    return fractions


def dream_fraction(steps: jax.Array | int, step: jax.Array, *, most: int) -> jax.Array:
    """float32 `[B]`: `dream_fractions(steps)[step]`, 1 after the last.

    Args:
      steps: one number, or `[B]` numbers of at most `most`: their fractions then stand in one table behind each other.
      step: `[B]`, from 0.
    """
    if isinstance(steps, int):
        return jnp.asarray(dream_fractions(steps))[jnp.minimum(step, steps - 1)]
    table = jnp.asarray(np.concatenate([dream_fractions(n) for n in range(1, most + 1)]))
    return table[steps * (steps - 1) // 2 + jnp.minimum(step, steps - 1)]
