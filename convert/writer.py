"""Writes a Hugging Face folder, tensor by tensor and shard by shard: the tables read backwards."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrd_jax.convert.folders import TOKENIZER_FILES, appearing, as_path, copy_files, require_absent
from lrd_jax.convert.hf_config import to_hf
from lrd_jax.convert.reader import Progress, check_progress, weight_dtype
from lrd_jax.convert.safetensors_io import DTYPES, ConversionError, header_bytes
from lrd_jax.convert.tables import ParamPath, ReadSlab, Tensor, flatten, param_shapes, tensors
from lrd_jax.models import ModelConfig

MAX_SHARD_BYTES = 5_000_000_000


def write_hf(
    params: dict[str, Any],
    config: ModelConfig,
    dest: Path,
    *,
    dtype: str | None = None,
    tokenizer: Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes parameters in memory as a Hugging Face folder that `ModelConfig.from_hf` and the converter read back.

    Args:
      params: nested dict of arrays, as of `Model(config).init`.
      dest: a folder that does not exist yet; it appears whole or not at all.
      dtype: name of the dtype to write, "bfloat16" for one; None keeps that of each parameter.
      tokenizer: a folder whose tokenizer files are copied.
      max_shard_bytes: a file holds at most this much data, or a single tensor.

    Raises:
      ConversionError: `dest` exists, the parameters are not those of the config, a dtype is not one for weights, or
        there is no folder `tokenizer`.
      ValueError: the config cannot be written as one of its family.
    """
    dest = as_path(dest, "dest")
    require_absent(dest)
    check_shard_bytes(max_shard_bytes)
    check_progress(progress)
    if tokenizer is not None and not as_path(tokenizer, "tokenizer").is_dir():
        raise ConversionError(f"there is no folder {tokenizer}", ["give one with a tokenizer's files, or None"])
    if not isinstance(config, ModelConfig) or not isinstance(params, Mapping):
        got = f"got a {type(params).__name__} and a {type(config).__name__}"
        raise ConversionError("parameters and their ModelConfig were wanted", [got])
    flat = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    got, wanted = {path: leaf.shape for path, leaf in flat.items()}, param_shapes(config)
    if got != wanted:
        differ = sorted(path for path in got.keys() | wanted.keys() if got.get(path) != wanted.get(path))
        raise ConversionError(
            "the parameters are not those of the config:",
            [f"{'.'.join(path)}: got {got.get(path)}, wanted {wanted.get(path)}" for path in differ],
        )
    dtypes = {path: leaf.dtype if dtype is None else weight_dtype(dtype) for path, leaf in flat.items()}
    if strange := {path: found for path, found in dtypes.items() if found not in DTYPES.values()}:
        raise ConversionError(
            "some parameters have a dtype that weights cannot have:",
            [f"{'.'.join(path)}: {found}; choose one with dtype" for path, found in strange.items()],
        )
    write_folder(
        config,
        dtypes,
        lambda tensor, slab: flat[tensor.path][slab.index],
        dest,
        tokenizer=tokenizer,
        max_shard_bytes=max_shard_bytes,
        progress=progress,
    )


def write_folder(
    config: ModelConfig,
    dtypes: dict[ParamPath, np.dtype],
    read: ReadSlab,
    dest: Path,
    *,
    tokenizer: Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes what `read` gives, cast to `dtypes`, as `write_hf` does."""
    hf_config = to_hf(config, dtypes[("table",)].name)
    with appearing(dest) as work:
        write_tensors(
            tensors(config),
            dtypes,
            lambda tensor, slab: read(tensor, slab).astype(dtypes[tensor.path], copy=False),
            work,
            max_shard_bytes=max_shard_bytes,
            progress=progress,
        )
        (work / "config.json").write_text(json.dumps(hf_config, indent=2, sort_keys=True) + "\n")
        if tokenizer is not None:
            copy_files(TOKENIZER_FILES, Path(tokenizer), work)


def check_shard_bytes(size: Any) -> None:
    """Raises ConversionError where it is no number of bytes for a file."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConversionError(f"max_shard_bytes={size!r} is no integer", ["give a number of bytes"])
    if size < 1:
        raise ConversionError(f"a shard of {size} bytes holds nothing", ["give a positive number of bytes"])


def write_tensors(
    wanted: tuple[Tensor, ...],
    dtypes: dict[ParamPath, np.dtype],
    read: ReadSlab,
    folder: Path,
    *,
    max_shard_bytes: int,
    progress: Progress | None,
    on_rows: Callable[[Tensor, np.ndarray], None] | None = None,
) -> None:
    """Writes shards and their index.

    Args:
      dtypes: dtype of each parameter, as `read` gives it.
      max_shard_bytes: a shard holds at most this much data, or a single tensor.
      on_rows: sees every piece of every tensor, as in the file and in file order.
    """
    sizes = {tensor.name: math.prod(tensor.shape) * dtypes[tensor.path].itemsize for tensor in wanted}
    shards = list(_shards(wanted, sizes, max_shard_bytes))
    total, done, weight_map = sum(sizes.values()), 0, {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / name).open("wb") as file:
            file.write(header_bytes({tensor.name: (dtypes[tensor.path], tensor.file_shape) for tensor in shard}))
            for tensor in shard:
                weight_map[tensor.name] = name
                for slab in tensor.slabs():
                    rows = tensor.to_file(read(tensor, slab))
                    if on_rows:
                        on_rows(tensor, rows)
                    file.write(rows.reshape(-1).view(np.uint8).data)
                    done += rows.nbytes
                    if progress:
                        progress(done, total, tensor.name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _shards(wanted: tuple[Tensor, ...], sizes: dict[str, int], max_bytes: int) -> Iterator[list[Tensor]]:
    """Fills one shard after the other, blocks kept together as far as they go."""
    shard: list[Tensor] = []
    size = 0
    for tensor in sorted(wanted, key=lambda tensor: -1 if tensor.layer is None else tensor.layer):
        if shard and size + sizes[tensor.name] > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += sizes[tensor.name]
    yield shard
