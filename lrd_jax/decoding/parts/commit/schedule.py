"""How many tokens LLaDA and Dream commit at each step: plain NumPy, computed when a decode is traced."""

import numpy as np


def llada_counts(masks: int, steps: int) -> np.ndarray:
    """Tokens per step, int32 `[steps]`: masks // steps each, the remainder on the first steps (LLaDA, generate)."""
    counts = np.full(steps, masks // steps, np.int32)
    counts[: masks % steps] += 1
    return counts


def dream_fractions(steps: int, eps: float = 1e-3) -> np.ndarray:
    """Share of the masks left that each step commits, float32 `[steps]`: 1 - s/t on linspace(1, eps), 1 at the last.

    float32 throughout, as in Dream's `_sample`: the count is `int(masks * fraction)` and rounding decides it.
    """
    t = np.linspace(1.0, eps, steps + 1, dtype=np.float32)
    fractions = np.float32(1.0) - t[1:] / t[:-1]
    fractions[-1] = 1.0
    return fractions
