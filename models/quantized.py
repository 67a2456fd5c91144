"""Weights of 8 bits: the blocks' matrices as integers, with one scale an output channel and no zero point.

W is read as values * scale, so x W = (x values) * scale. Activations, norms, biases, embeddings and the head stay as
they were. Rounding to the nearest keeps every weight within half a step, 1/254 of the largest of its channel.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

INT8 = "int8"  # the only kind so far
MATRICES = {"q": 1, "k": 1, "v": 1, "out": 2, "gate": 1, "up": 1, "down": 1}  # axes that the product contracts
_MOST = 127  # of an integer; -128 is left out, so that both signs reach as far


def quantize(weights: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """int8 values of float weights, a NumPy or jax array, and their float32 scales without the contracted axes.

    Args:
      axes: that a product contracts; what is left of the shape are the output channels.
    """
    xp = np if isinstance(weights, np.ndarray) else jnp
    weights = weights.astype(np.float32)
    largest = xp.abs(weights).max(axis=axes, keepdims=True)
    scale = xp.where(largest > 0, largest / np.float32(_MOST), np.float32(1))
    return xp.round(weights / scale).astype(np.int8), scale.squeeze(axes)


def scale_of(name: str) -> str:
    """The parameter that holds the scales of a matrix."""
    return f"{name}_scale"


def is_of_quantized(path: tuple[str, ...]) -> bool:
    """Whether a parameter of a quantised model has a dtype of its own: a matrix's integers, or their scales."""
    return path[0] == "blocks" and path[-1].removesuffix("_scale") in MATRICES
