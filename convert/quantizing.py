"""Matrices written as integers and scales: a file's rows are output channels, so that each slab is quantised alone."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lrd_jax.convert.reader import Source
from lrd_jax.convert.safetensors_io import ConversionError
from lrd_jax.convert.store import bytes_of, create_array, write_slab
from lrd_jax.convert.tables import Tensor
from lrd_jax.models.quantized import INT8, quantize


def check_quantize(name: str | None) -> None:
    """Raises ConversionError for what weights cannot be quantised to."""
    if name not in (None, INT8):
        raise ConversionError(f"quantize={name!r:.80} is no kind of weights", [f"give {INT8!r} or None"])


def write_quantized(
    source: Source,
    work: Path,
    matrices: tuple[Tensor, ...],
    scales: tuple[Tensor, ...],
    report: Callable[[int, str], None],
) -> tuple[dict[str, str], dict[str, str]]:
    """Writes a parameter's matrices as int8 and their scales as float32.

    Args:
      matrices, scales: the tensors of both parameters, layer by layer.
      report: told the bytes that were read, and of which tensor.

    Returns:
      The sha256 of each tensor in the file's layout: of the matrices as read, and of both as written.
    """
    values_array = create_array(work, matrices[0], len(matrices), np.dtype(np.int8))
    scales_array = create_array(work, scales[0], len(scales), np.dtype(np.float32))
    read_hashes, written_hashes = {}, {}
    for matrix, scale in zip(matrices, scales, strict=True):
        read, written, found = hashlib.sha256(), hashlib.sha256(), []
        for index, rows in source.slabs(matrix):
            read.update(bytes_of(rows))
            values, steps = quantize(rows, axes=(1,))
            written.update(bytes_of(values))
            found.append(steps)
            write_slab(values_array, index, matrix.to_params(values))
            report(rows.nbytes, matrix.name)
        channels = np.concatenate(found)
        for slab in scale.slabs():
            write_slab(scales_array, slab.index, scale.to_params(channels[slab.rows]))
        read_hashes[matrix.name], written_hashes[matrix.name] = read.hexdigest(), written.hexdigest()
        written_hashes[scale.name] = hashlib.sha256(bytes_of(channels)).hexdigest()
    return read_hashes, written_hashes
