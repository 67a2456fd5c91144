"""Axes of parameters that are longer than their model's, so that a mesh divides them.

Exact by construction: rows beyond the vocabulary are cut off before anybody reads them (`Model.table`, `Model.logits`),
and query heads that are added to each group of heads are zero, in and out, so that they add 0 to every sum.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from lrd_jax.models.config import ModelConfig


def groups_of(config: ModelConfig, axis: str) -> int | None:
    """In how many groups an axis is lengthened, each at its end; None for one that is never.

    Args:
      axis: the logical name, see `Model.param_axes`.
    """
    if axis == "vocab":
        return 1
    grouped = config.num_kv_heads < config.num_heads
    return config.num_kv_heads if axis == "heads" and grouped else None  # their caches are as long as the kv heads


def padded_size(size: int, groups: int, parts: int) -> int:
    """The least length of at least `size`, in equal groups, that `parts` divide."""
    step = parts // math.gcd(groups, parts)
    return groups * (-(-size // groups // step) * step)


def fit(x: Any, axis: int, size: int, groups: int) -> Any:
    """An array whose axis has `size` places: each of its groups padded with zeros, or cut, at its end."""
    shape = x.shape
    if shape[axis] == size:
        return x
    xp = np if isinstance(x, np.ndarray) else jnp
    x = x.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    here, wanted = shape[axis] // groups, size // groups
    if wanted < here:
        x = x[(slice(None),) * (axis + 1) + (slice(0, wanted),)]
    else:
        x = xp.pad(x, [(0, wanted - here) if i == axis + 1 else (0, 0) for i in range(x.ndim)])
    return x.reshape(*shape[:axis], size, *shape[axis + 1 :])


def moved(start: int, stop: int, size: int, padded: int, groups: int) -> Iterator[tuple[int, int, int]]:
    """Where places `start` to `stop` of an axis lie in a longer one: start, stop and new start of each piece."""
    here, there = size // groups, padded // groups
    for group in range(start // here, -(-stop // here)):
        first, last = max(start, group * here), min(stop, (group + 1) * here)
        yield first, last, first + group * (there - here)
