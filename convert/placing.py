"""Parameters onto devices, each in the memory of itself and a slab.

What `ocp.load` and `jax.device_put` do is read whole and copied: for a checkpoint of N bytes they hold up to 2 N. Here
every part that a device of this process holds is allocated once, filled slab by slab, and adopted by JAX as it is: an
array of the host that lies on 64 bytes becomes one of the CPU without a copy.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np

from lrd_jax.convert.tables import ParamPath, ReadSlab, Tensor, by_param, param_shapes, unflatten
from lrd_jax.models import ModelConfig

_ALIGNMENT = 64  # bytes; what XLA asks of memory that it adopts

_Box = tuple[tuple[int, int], ...]  # start and stop on every axis


def place_params(
    config: ModelConfig,
    dtypes: Mapping[ParamPath, np.dtype],
    shardings: Mapping[ParamPath, jax.sharding.Sharding],
    read: ReadSlab,
) -> dict:
    """Every parameter of the config on its devices, as a nested dict of jax arrays.

    A slab is read once, cast, and copied to all the parts that it overlaps; one that no device of this process holds a
    part of is not read. Devices that hold the same part share its memory where they are the host's.

    Args:
      dtypes: of the arrays; what `read` gives is cast.
    """
    shapes = param_shapes(config)
    return unflatten(
        {
            path: _place(group, shapes[path], dtypes[path], shardings[path], read)
            for path, group in by_param(config).items()
        }
    )


def _place(
    group: tuple[Tensor, ...],
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: jax.sharding.Sharding,
    read: ReadSlab,
) -> jax.Array:
    places = sharding.addressable_devices_indices_map(shape).items()
    held = {device: _box(index, shape) for device, index in places if index is not None}
    parts = {box: aligned_empty([stop - start for start, stop in box], dtype) for box in held.values()}
    for tensor in group:
        for slab in tensor.slabs():
            slab_box = _box(slab.index, shape)
            hit = {box: common for box in parts if (common := _common(box, slab_box)) is not None}
            if hit:
                values = read(tensor, slab).reshape([stop - start for start, stop in slab_box])
                for box, common in hit.items():
                    parts[box][_within(common, box)] = values[_within(common, slab_box)]
    arrays = [jax.device_put(parts[box], device) for device, box in held.items()]
    # Waiting lets go of the host's memory before the next parameter where the devices have their own.
    return jax.block_until_ready(jax.make_array_from_single_device_arrays(shape, sharding, arrays, dtype=dtype))


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
