"""The real numbers of a config, one a row: which of its leaves they are, and configs with others in their place."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Vocabulary
from lrd_jax.decoding.setting import specs
from lrd_jax.errors import Refused
from lrd_jax.presets import adjusted


def numbers_of(config: DecodeConfig) -> np.ndarray:
    """float32 `[K]`: its numbers, in the order of its leaves.

    Raises:
      Refused: a number that is one a row already.
    """
    leaves = [leaf for leaf, is_number in zip(jax.tree.leaves(config), _are_numbers(config), strict=True) if is_number]
    if any(np.ndim(leaf) for leaf in leaves):
        raise Refused("an engine's config has plain numbers; those of single rows come with their requests")
    return np.array(leaves, np.float32)


def with_numbers(config: DecodeConfig, numbers: Any) -> DecodeConfig:
    """The config with numbers `[B, K]` as its own, one a row."""
    columns = iter(jnp.moveaxis(jnp.asarray(numbers), 1, 0))
    leaves, treedef = jax.tree.flatten(config)
    kinds = _are_numbers(config)
    return treedef.unflatten(next(columns) if number else leaf for leaf, number in zip(leaves, kinds, strict=True))


def changed_numbers(config: DecodeConfig, changes: Mapping[str, Any], words: Vocabulary) -> np.ndarray:
    """`numbers_of` the config with some fields changed, named as in `lrd_jax.presets.preset`.

    Raises:
      Refused: what is no number of this config, out of its range, or no token of the model's.
    """
    if not isinstance(changes, Mapping) or not all(isinstance(name, str) for name in changes):
        raise Refused(f"numbers must be a table of the config's numbers by name, got {changes!r:.80}")
    for name, value in changes.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise Refused(f"numbers: {name}={value!r:.80} must be a number")
    wanted = adjusted(config, changes) if changes else config
    if jax.tree.structure(wanted) != jax.tree.structure(config):
        raise Refused(
            f"numbers: {', '.join(changes)} would make another decoder of this one; a request may change numbers that "
            "the engine's decoder has, and no more: start an engine for the other"
        )
    wanted.sizing.check_vocabulary(words)
    return numbers_of(wanted)


def _are_numbers(setting: Any) -> list[bool]:
    """For each leaf of a setting, whether it is a number; others are arrays of learned parts."""
    kinds = []
    for name, (spec, _) in specs(type(setting)).items():
        value = getattr(setting, name)
        if value is None or spec.is_structure:
            continue
        kinds += _are_numbers(value) if spec.kind == "part" else [spec.kind == "number"]
    return kinds
