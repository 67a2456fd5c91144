"""Hugging Face -> Orbax and back, streaming: one slab of one tensor in memory at a time."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lrd_jax.convert.checksums import write_checksums
from lrd_jax.convert.folders import (
    SIDE_FILES,
    appearing,
    as_path,
    copy_files,
    require_absent,
    require_files,
    require_outside,
)
from lrd_jax.convert.hub import find_source
from lrd_jax.convert.quantizing import check_quantize, write_quantized
from lrd_jax.convert.reader import Progress, Source, check_progress, open_source, weight_dtype
from lrd_jax.convert.safetensors_io import DTYPES, NAMES, ConversionError
from lrd_jax.convert.store import (
    CheckpointInfo,
    Stored,
    bytes_of,
    create_array,
    finish,
    open_array,
    open_stored,
    read_info,
    write_slab,
)
from lrd_jax.convert.tables import ParamPath, by_param, dtypes_of, tensors
from lrd_jax.convert.writer import MAX_SHARD_BYTES, check_shard_bytes, write_tensors
from lrd_jax.errors import check_function
from lrd_jax.models import ModelConfig
from lrd_jax.models.quantized import scale_of


def convert(
    source: str | Path,
    dest: Path,
    *,
    dtype: str | None = None,
    quantize: str | None = None,
    verify: bool = False,
    revision: str | None = None,
    progress: Progress | None = None,
    look: Callable[[Path, ModelConfig], object] = lambda folder, config: None,
) -> CheckpointInfo:
    """Converts Hugging Face weights to an Orbax v1 checkpoint, with the tokenizer files and config.json beside it.

    Args:
      source: a Hugging Face folder, a hub id ("GSAI-ML/LLaDA-8B-Base"), or the name of a preset.
      dest: a folder that does not exist yet; it appears whole or not at all.
      dtype: name of a dtype to cast to; None keeps that of each tensor.
      quantize: "int8": the blocks' matrices become integers with a scale an output channel, see
        `lrd_jax.models.quantized`; all else is stored in `dtype`.
      verify: read everything back at the end and compare it bit by bit.
      revision: branch, tag or commit on the hub.
      look: called with the source's folder and config before anything is written; what it raises ends all.
      progress: called with the bytes done, the bytes in all (twice the checkpoint with `verify`), and a tensor's name.

    Returns:
      What the checkpoint now says of itself.

    Raises:
      ConversionError: `dest` exists or lies in the source, the source cannot be had, or every problem that was found
        in it.
    """
    dest, _ = as_path(dest, "dest"), as_path(source, "source")
    if not isinstance(verify, bool):
        raise ConversionError(f"verify={verify!r:.80} is no boolean", ["give True or False"])
    if not isinstance(revision, str | None):
        raise ConversionError(f"revision={revision!r:.80} is no name", ["give a branch, tag or commit, or None"])
    check_progress(progress)
    check_function(look, "look")
    check_quantize(quantize)
    require_absent(dest)
    if dtype is not None:
        weight_dtype(dtype)
    origin = find_source(source, revision)
    require_files(SIDE_FILES, origin.folder)
    checked = open_source(origin.folder, uniform=dtype is None)
    config = dataclasses.replace(checked.config, quantized=quantize)
    require_outside(dest, origin.folder)
    look(origin.folder, config)
    report = _Counter(progress, total=checked.nbytes * (2 if verify else 1))
    with appearing(dest) as work:
        dtypes = dtypes_of(config, checked.dtypes(dtype))
        read_hashes, written_hashes = _write_arrays(checked, config, work, dtypes, report)
        if verify:
            _verify(checked, config, work, written_hashes, report)
        info = CheckpointInfo(
            source=origin.name,
            revision=origin.revision,
            config=config,
            dtype=dtype,
            tensors={
                name: {"dtype": entry.dtype, "shape": list(entry.shape), "sha256": read_hashes[name]}
                | ({} if read_hashes[name] == written_hashes[name] else {"cast_sha256": written_hashes[name]})
                for name, entry in checked.entries.items()
            }
            | {
                tensor.name: {
                    "dtype": NAMES[dtypes[tensor.path]],
                    "shape": list(tensor.file_shape),
                    "sha256": written_hashes[tensor.name],
                }
                for tensor in tensors(config)
                if tensor.name not in checked.entries
            },
        )
        copy_files(SIDE_FILES, checked.folder, work)
        _copy_config(checked, work, dtype)
        finish(work, dtypes, info)
        write_checksums(work)
    return info


def export(
    checkpoint: Path,
    dest: Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes a converted checkpoint back as a Hugging Face folder, bit for bit what it was converted from.

    Each tensor is checked on the way against the hash that it was written with.

    Args:
      checkpoint: a folder that `convert` wrote.
      dest: a folder that does not exist yet; it appears whole or not at all.
      max_shard_bytes: a file holds at most this much data, or a single tensor.

    Raises:
      ConversionError: `dest` exists or lies in `checkpoint`, which is not a converted checkpoint, is damaged, or was
        quantised and no longer holds what it was converted from.
    """
    checkpoint, dest = as_path(checkpoint, "checkpoint"), as_path(dest, "dest")
    require_absent(dest)
    check_shard_bytes(max_shard_bytes)
    check_progress(progress)
    info = read_info(checkpoint)
    require_outside(dest, checkpoint)
    if info.config.quantized is not None:
        raise ConversionError(
            f"{checkpoint} holds {info.config.quantized} weights, and not those that it was converted from",
            [f"they are in {info.source}; a conversion without quantize can be exported"],
        )
    stored = open_stored(checkpoint, info.config)
    hashes = {tensor.name: hashlib.sha256() for tensor in tensors(info.config)}
    with appearing(dest) as work:
        write_tensors(
            tensors(info.config),
            stored.dtypes,
            stored.read,
            work,
            max_shard_bytes=max_shard_bytes,
            progress=progress,
            on_rows=lambda tensor, rows: hashes[tensor.name].update(bytes_of(rows)),
        )
        wanted = {
            tensor.name: info.stored_sha256(tensor, stored.dtypes[tensor.path]) for tensor in tensors(info.config)
        }
        damaged = [
            f"{name} has sha256 {hashes[name].hexdigest()}, {wanted[name]} was written"
            for name in hashes
            if wanted[name] not in (None, hashes[name].hexdigest())
        ]
        if damaged:
            raise ConversionError(f"{checkpoint} is damaged:", damaged)
        copy_files((*SIDE_FILES, "config.json"), checkpoint, work)


class _Counter:
    """Adds up bytes for a progress callback."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def add(self, nbytes: int, name: str) -> None:
        self.done += nbytes
        if self.progress:
            self.progress(self.done, self.total, name)


def _write_arrays(
    source: Source, config: ModelConfig, work: Path, dtypes: dict[ParamPath, np.dtype], report: _Counter
) -> tuple[dict[str, str], dict[str, str]]:
    """Writes every parameter; returns the sha256 of each tensor in the file's layout, as read and as written."""
    read_hashes: dict[str, str] = {}
    written_hashes: dict[str, str] = {}
    stored = by_param(config)
    for path, group in by_param(source.config).items():
        if (scales := stored.get((*path[:-1], scale_of(path[-1])))) is not None:
            read, written = write_quantized(source, work, group, scales, report.add)
            read_hashes |= read
            written_hashes |= written
            continue
        target = dtypes[path]
        array = create_array(work, group[0], None if group[0].layer is None else len(group), target)
        for tensor in group:
            read, written = hashlib.sha256(), hashlib.sha256()
            for index, rows in source.slabs(tensor):
                read.update(bytes_of(rows))
                nbytes = rows.nbytes
                if rows.dtype != target:
                    rows = rows.astype(target)
                    written.update(bytes_of(rows))
                write_slab(array, index, tensor.to_params(rows))
                report.add(nbytes, tensor.name)
            read_hashes[tensor.name] = read.hexdigest()
            cast = DTYPES[source.entries[tensor.name].dtype] != target
            written_hashes[tensor.name] = (written if cast else read).hexdigest()
    return read_hashes, written_hashes


def _verify(source: Source, config: ModelConfig, work: Path, hashes: dict[str, str], report: _Counter) -> None:
    """Reads what was written through the table backwards and compares it with what was meant."""
    wrong = []
    for path, group in by_param(config).items():
        stored = Stored(folder=work, arrays={path: open_array(work, path)})
        for tensor in group:
            if (found := stored.sha256(tensor)) != hashes[tensor.name]:
                wrong.append(f"{tensor.name} reads back as {found}, wanted {hashes[tensor.name]}")
            if tensor.name in source.entries:
                report.add(source.entries[tensor.name].nbytes, tensor.name)
    if wrong:
        raise ConversionError("the checkpoint does not read back as it was written:", wrong)


def _copy_config(source: Source, work: Path, dtype: str | None) -> None:
    """config.json as it was; after a cast it names the new dtype, where it names one."""
    hf: dict[str, Any] = source.hf_config
    if dtype is None or "torch_dtype" not in hf:
        copy_files(("config.json",), source.folder, work)
    else:
        (work / "config.json").write_text(json.dumps(hf | {"torch_dtype": dtype}, indent=2) + "\n")
