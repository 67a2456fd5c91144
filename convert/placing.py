"""Parameters onto devices, each in the memory of itself and a slab.

What `ocp.load` and `jax.device_put` do is read whole and copied: for a checkpoint of N bytes they hold up to 2 N. Here
every part that a device of this process holds is allocated once, filled slab by slab, and adopted by JAX as it is: an
array of the host that lies on 64 bytes becomes one of the CPU without a copy.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from lrd_jax.convert.tables import ParamPath, ReadSlab, Tensor, by_param, flatten, param_shapes, unflatten
from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.padding import groups_of, moved

_ALIGNMENT = 64  # bytes; what XLA asks of memory that it adopts

_Box = tuple[tuple[int, int], ...]  # start and stop on every axis


def place_params(
    config: ModelConfig,
    dtypes: Mapping[ParamPath, np.dtype],
    shardings: Mapping[ParamPath, jax.sharding.Sharding],
    read: ReadSlab,
    padded: Mapping[ParamPath, tuple[int, ...]] | None = None,
) -> dict:
    """Every parameter of the config on its devices, as a nested dict of jax arrays.

    A slab is read once, cast, and copied to all the parts that it overlaps; one that no device of this process holds a
    part of is not read. Devices that hold the same part share its memory where they are the host's.

    Args:
      dtypes: of the arrays; what `read` gives is cast.
      padded: their shapes, where some are longer than the config's, see `lrd_jax.models.padding`; None: none is.
    """
    shapes, axes = param_shapes(config), flatten(Model(config).param_axes())
    padded = shapes if padded is None else padded
    placed = {}
    for path, group in by_param(config).items():
        groups = tuple(groups_of(config, name) or 1 for name in axes[path])
        move = functools.partial(_moved, shapes[path], padded[path], groups)
        placed[path] = _place(group, shapes[path], padded[path], dtypes[path], shardings[path], read, move)
    return unflatten(placed)


def _place(
    group: tuple[Tensor, ...],
    shape: tuple[int, ...],
    padded: tuple[int, ...],
    dtype: np.dtype,
    sharding: jax.sharding.Sharding,
    read: ReadSlab,
    move: Callable[[_Box], Iterator[tuple[_Box, _Box]]],
) -> jax.Array:
    places = sharding.addressable_devices_indices_map(padded).items()
    held = {device: _box(index, padded) for device, index in places if index is not None}
    parts = {box: aligned_empty([stop - start for start, stop in box], dtype) for box in held.values()}
    if padded != shape:
        for part in parts.values():
            part.fill(0)
    for tensor in group:
        for slab in tensor.slabs():
            slab_box = _box(slab.index, shape)
            pieces = [
                (box, piece, common, there)
                for piece, there in move(slab_box)
                for box in parts
                if (common := _common(box, there)) is not None
            ]
            if pieces:
                values = read(tensor, slab).reshape([stop - start for start, stop in slab_box])
                for box, piece, common, there in pieces:
                    values_there = values[_within(piece, slab_box)]
                    parts[box][_within(common, box)] = values_there[_within(common, there)]
    arrays = [jax.device_put(parts[box], device) for device, box in held.items()]
    # Waiting lets go of the host's memory before the next parameter where the devices have their own.
    return jax.block_until_ready(jax.make_array_from_single_device_arrays(padded, sharding, arrays, dtype=dtype))


def _moved(
    shape: tuple[int, ...], padded: tuple[int, ...], groups: tuple[int, ...], box: _Box
) -> Iterator[tuple[_Box, _Box]]:
    """The pieces of a box of the config's parameter, and where each lies in the padded one."""
    axes = []
    for (start, stop), size, longer, count in zip(box, shape, padded, groups, strict=True):
        whole = [(start, stop, start)]
        axes.append(whole if size == longer else list(moved(start, stop, size, longer, count)))
    for pieces in itertools.product(*axes):
        here = tuple((start, stop) for start, stop, _ in pieces)
        yield here, tuple((there, there + stop - start) for start, stop, there in pieces)


def aligned_empty(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """`np.empty` on an address that XLA adopts."""
    nbytes = math.prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def _box(index: tuple[int | slice, ...], shape: tuple[int, ...]) -> _Box:
    index = (*index, *(slice(None),) * (len(shape) - len(index)))
    return tuple(
        (i, i + 1) if isinstance(i, int) else i.indices(size)[:2] for i, size in zip(index, shape, strict=True)
    )


def _common(a: _Box, b: _Box) -> _Box | None:
    """What two boxes share; None where they share nothing."""
    common = tuple((max(s, t), min(e, f)) for (s, e), (t, f) in zip(a, b, strict=True))
    return common if all(start < stop for start, stop in common) else None


def _within(box: _Box, outer: _Box) -> tuple[slice, ...]:
    """The slices of `box` in an array that holds `outer`."""
    return tuple(slice(start - base, stop - base) for (start, stop), (base, _) in zip(box, outer, strict=True))
