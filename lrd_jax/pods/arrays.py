"""Arrays onto a mesh of all processes' devices, and their values back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lrd_jax.errors import Refused

_SLAB_ELEMENTS = 1 << 24  # what a device holds of an array that goes to process 0: 64 MB of float32


def place(tree: Any, shardings: Any) -> Any:
    """Puts arrays where their shardings say; one path for one process and for many.

    Each process gives its own devices their parts of the arrays that it holds: nothing is sent, compared or gathered,
    and no device holds more than its part. (`jax.device_put` onto several processes gathers every array on every
    device first, to compare.) Every process must hold the same values.

    Args:
      tree: arrays of the host or of this process's devices, random keys too. An array that lies over several processes
        is moved by a program that every process must run.
      shardings: a `jax.sharding.Sharding` for each, or for a whole branch of `tree`.

    Raises:
      Refused: what is no array, or no sharding of it.
    """
    for sharding in jax.tree.leaves(shardings):
        if not isinstance(sharding, jax.sharding.Sharding):
            raise Refused(f"shardings must be jax.sharding.Sharding, as of batch_sharding(mesh), got {sharding!r:.80}")
    _check_arrays(tree)
    try:
        each = jax.tree.broadcast(shardings, tree)
    except (ValueError, TypeError) as error:
        raise Refused(f"shardings must have the structure of the arrays, or of their branches: {error}") from None
    return jax.tree.map(_place, tree, each)


def fetch(tree: Any) -> Any:
    """The values of arrays as NumPy arrays, whole, on every process; random keys as their data.

    Every process must call it, in the same order: what lies over several of them is sent to all.

    Raises:
      Refused: what is no array.
    """
    _check_arrays(tree)
    leaves, treedef = jax.tree.flatten(tree)
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]
    far = [i for i, leaf in enumerate(leaves) if not (_is_here(leaf) or leaf.is_fully_replicated)]
    if far:
        meshes = [sharding.mesh for i in far if isinstance(sharding := leaves[i].sharding, NamedSharding)]
        whole = [NamedSharding(mesh, PartitionSpec()) for mesh in meshes]
        for i, leaf in zip(far, jax.jit(_same, out_shardings=whole)([leaves[i] for i in far]), strict=True):
            leaves[i] = leaf
    return treedef.unflatten(np.asarray(leaf if _is_here(leaf) else leaf.addressable_data(0)) for leaf in leaves)


def fetch_to_first(tree: Any) -> Any:
    """The values of arrays as NumPy arrays, on process 0 alone; on the others what stands there means nothing.

    An array goes by slabs of its leading axis, so that no device holds all of it. Every process must call it.

    Raises:
      Refused: what is no array.
    """
    _check_arrays(tree)
    return jax.tree.map(_fetch_to_first, tree)


def _check_arrays(tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        is_number = isinstance(leaf, int | float | complex)
        if not is_number and not (hasattr(leaf, "dtype") and (_is_key(leaf) or leaf.dtype.kind not in "OSUMm")):
            raise Refused(f"arrays of numbers were wanted, got {leaf!r:.80}")


def _fetch_to_first(leaf: jax.Array) -> np.ndarray | None:
    if _is_here(leaf) or leaf.is_fully_replicated:
        return fetch(leaf)
    rows = max(1, _SLAB_ELEMENTS * len(leaf) // leaf.size)
    whole = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    take = jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2, out_shardings=whole)
    out = np.empty(leaf.shape, leaf.dtype) if jax.process_index() == 0 else None
    for start in range(0, len(leaf), rows):
        start = min(start, len(leaf) - min(rows, len(leaf)))
        slab = take(leaf, start, min(rows, len(leaf))).addressable_data(0)
        if out is not None:
            out[start : start + len(slab)] = slab
    return out


def _place(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if not _is_here(leaf):
        return jax.jit(_same, out_shardings=sharding)(leaf)
    host = leaf if _is_key(leaf) else np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _is_here(leaf: Any) -> bool:
    return getattr(leaf, "is_fully_addressable", True)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key)


def _same(x: Any) -> Any:
    return x
