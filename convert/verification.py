"""Whether a converted checkpoint still is what was written."""

import os
from pathlib import Path

from lrd_jax.convert.checksums import damaged_files
from lrd_jax.convert.folders import as_path
from lrd_jax.convert.reader import Progress, check_progress
from lrd_jax.convert.safetensors_io import ConversionError
from lrd_jax.convert.store import CheckpointInfo, open_stored, read_info
from lrd_jax.convert.tables import tensors


def verify(checkpoint: Path, *, progress: Progress | None = None) -> CheckpointInfo:
    """Reads all of a converted checkpoint and compares every file and every tensor with the hashes beside them.

    Args:
      checkpoint: a folder that `convert` wrote.
      progress: called with the bytes done, the bytes in all, and a tensor's name.

    Returns:
      What the checkpoint says of itself.

    Raises:
      ConversionError: not a converted checkpoint, or all the files and tensors that are damaged.
    """
    checkpoint = as_path(checkpoint, "checkpoint")
    check_progress(progress)
    if not checkpoint.is_dir():
        raise ConversionError(f"there is no folder {checkpoint}", ["give one that `lrd-jax convert` wrote"])
    os.scandir(checkpoint).close()  # a folder that may not be read is told from one of something else
    problems = damaged_files(checkpoint)
    try:
        info = read_info(checkpoint)
        stored = open_stored(checkpoint, info.config)
    except ConversionError as error:
        if not problems:
            raise
        raise ConversionError(f"{checkpoint} is damaged:", [*problems, *error.problems]) from error
    sizes = {path: array.size * array.dtype.numpy_dtype.itemsize for path, array in stored.arrays.items()}
    total, done = sum(sizes.values()), 0
    for tensor in tensors(info.config):
        wanted = info.stored_sha256(tensor, stored.dtypes[tensor.path])
        try:
            found = stored.sha256(tensor)
        except ConversionError as error:
            problems += error.problems
        else:
            if wanted not in (None, found):
                problems.append(f"{tensor.name} has sha256 {found}, {wanted} was written")
        layers = 1 if tensor.layer is None else stored.arrays[tensor.path].shape[0]
        done += sizes[tensor.path] // layers
        if progress:
            progress(done, total, tensor.name)
    if problems:
        raise ConversionError(f"{checkpoint} is damaged:", problems)
    return info
