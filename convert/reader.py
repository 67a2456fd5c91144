"""Reads a Hugging Face folder: checks all of it against the family's table first, then gives it tensor by tensor."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from lrd_jax.convert.safetensors_io import DTYPES, ConversionError, Entry, parse_json, read_header
from lrd_jax.convert.tables import ParamPath, Slab, Tensor, by_param, tensors, unflatten
from lrd_jax.errors import Refused, check_function
from lrd_jax.models import ModelConfig
from lrd_jax.models.hf_fields import TELLTALES

WEIGHT_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, name of the tensor


def check_progress(progress: Any) -> None:
    """Raises Refused for what is neither None nor can be called."""
    if progress is not None:
        check_function(progress, "progress")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A Hugging Face folder that has been checked.

    Attributes:
      entries: where each tensor of `tensors(config)` lies.
    """

    folder: Path
    hf_config: dict[str, Any]
    config: ModelConfig
    entries: dict[str, Entry]

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries.values())

    def slabs(self, tensor: Tensor) -> Iterator[tuple[tuple[int | slice, ...], np.ndarray]]:
        """Pairs of an index into the parameter and the rows of the file that belong there, as in the file."""
        entry = self.entries[tensor.name]
        for slab in tensor.slabs():
            yield slab.index, entry.read_rows(slab.rows)

    def read(self, tensor: Tensor, slab: Slab) -> np.ndarray:
        """The values at a slab's `index` of its parameter."""
        return tensor.to_params(self.entries[tensor.name].read_rows(slab.rows))

    def dtypes(self, dtype: str | None) -> dict[ParamPath, np.dtype]:
        """Of every parameter: the one named, or that of its tensors in the file."""
        return {
            path: DTYPES[self.entries[group[0].name].dtype] if dtype is None else weight_dtype(dtype)
            for path, group in by_param(self.config).items()
        }


def weight_dtype(name: str) -> np.dtype:
    """The dtype of that name.

    Raises:
      ConversionError: not a dtype that weights may have.
    """
    if not isinstance(name, str) or name not in WEIGHT_DTYPES:
        raise ConversionError(f"dtype {name!r} is not one for weights", [f"known: {', '.join(WEIGHT_DTYPES)}"])
    return WEIGHT_DTYPES[name]


def open_source(folder: Path, *, uniform: bool = True) -> Source:
    """Checks a Hugging Face folder: config, index, headers, tensor names, shapes and dtypes.

    Args:
      uniform: all blocks must hold a parameter in one dtype, because they are stacked (not needed where it is cast).

    Raises:
      ConversionError: with every problem that was found.
    """
    hf_config, config, problems = read_config(folder)
    entries, file_problems = _read_entries(folder)
    problems += file_problems
    if config is not None and entries:
        problems += _compare(config, entries, complete=not file_problems, uniform=uniform)
    if problems or config is None:
        raise ConversionError(f"{folder} is not a checkpoint that can be converted:", problems)
    return Source(folder=folder, hf_config=hf_config, config=config, entries=entries)


def read_config(folder: Path) -> tuple[dict[str, Any], ModelConfig | None, list[str]]:
    """config.json as it stands and as a config (None where it is none), and what is wrong with it."""
    file = folder / "config.json"
    if not file.is_file():
        return {}, None, ["config.json is absent"]
    try:
        hf_config = parse_json(file.read_bytes())
    except ValueError as error:
        return {}, None, [f"config.json is not JSON: {error}"]
    try:
        return hf_config, ModelConfig.from_hf(hf_config), []
    except ValueError as error:
        return {}, None, [f"config.json: {error}".replace("config.json: config.json", "config.json")]


def _read_entries(folder: Path) -> tuple[dict[str, Entry], list[str]]:
    """All tensors of the folder's files, and what is wrong with the files."""
    index = folder / "model.safetensors.index.json"
    weight_map: dict[str, str] = {}
    if index.is_file():
        try:
            said = parse_json(index.read_bytes())
            found = said.get("weight_map") if isinstance(said, dict) else None
            if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
                raise Refused('an object was wanted whose "weight_map" tells the file of each tensor')
            weight_map = found
            if strange := [name for name in weight_map.values() if not name or Path(name).name != name]:
                raise Refused(f"it names {strange[0]!r}, which is no file of this folder")
        except ValueError as error:
            return {}, [f"{index.name} is not an index of weights: {error!s:.300}"]
        names = sorted(set(weight_map.values()))
    else:
        names = ["model.safetensors"]
        if not (folder / names[0]).is_file():
            return {}, [f"neither {names[0]} nor {index.name} is there; only safetensors are read"]
    entries: dict[str, Entry] = {}
    problems = []
    readable = set()
    for name in names:
        file = folder / name
        if not file.is_file():
            problems.append(f"{index.name} names {name}, which is absent")
            continue
        try:
            found = read_header(file)
        except ConversionError as error:
            problems += error.problems
            continue
        readable.add(name)
        problems += [
            f"{tensor} is both in {entries[tensor].file.name} and in {name}" for tensor in entries.keys() & found
        ]
        entries |= found
    problems += [
        f"{index.name} puts {tensor} into {name}, which does not hold it"
        for tensor, name in weight_map.items()
        if name in readable and (tensor not in entries or entries[tensor].file.name != name)
    ]
    return entries, problems


def _compare(config: ModelConfig, entries: dict[str, Entry], *, complete: bool, uniform: bool) -> list[str]:
    """What the tensors lack, have too much or have otherwise than the config says."""
    wanted = {tensor.name: tensor for tensor in tensors(config)}
    ending, sentence = TELLTALES.get(config.family, (None, ""))
    if ending is not None and any(name.endswith(ending) for name in entries):
        return [sentence]
    problems = [f"unexpected tensor {name} {list(entries[name].shape)}" for name in sorted(entries.keys() - wanted)]
    if complete:  # otherwise the tensors of an unreadable file would be reported one by one
        problems += [
            f"missing tensor {name} {list(tensor.file_shape)}" for name, tensor in wanted.items() if name not in entries
        ]
    for name in wanted.keys() & entries.keys():
        entry = entries[name]
        if entry.shape != wanted[name].file_shape:
            problems.append(f"{name} has shape {list(entry.shape)}, wanted {list(wanted[name].file_shape)}")
        if entry.dtype not in DTYPES:
            problems.append(f"{name} has dtype {entry.dtype}, wanted one of {', '.join(DTYPES)}")
    for path, group in by_param(config).items():
        dtypes = {entries[t.name].dtype for t in group if t.name in entries}
        if uniform and len(dtypes) > 1:
            problems.append(
                f"{'.'.join(path)} has dtypes {', '.join(sorted(dtypes))} in different blocks; choose one with --dtype"
            )
    return problems


def read_hf(folder: Path, *, dtype: str | None = None, progress: Progress | None = None) -> tuple[ModelConfig, dict]:
    """Reads a whole Hugging Face folder into memory.

    Args:
      dtype: name of a dtype to cast to; None keeps that of the file.

    Returns:
      The config, and the params as numpy arrays.

    Raises:
      ConversionError: with every problem that was found.
    """
    check_progress(progress)
    source = open_source(folder, uniform=dtype is None)
    done, params = 0, {}
    for path, leaf in read_params(source, dtype):
        params[path] = leaf
        done += sum(source.entries[tensor.name].nbytes for tensor in by_param(source.config)[path])
        if progress:
            progress(done, source.nbytes, ".".join(path))
    return source.config, unflatten(params)


def read_params(source: Source, dtype: str | None) -> Iterator[tuple[ParamPath, np.ndarray]]:
    """The parameters one by one, stacked over the blocks, with their paths."""
    dtypes = source.dtypes(dtype)
    for path, group in by_param(source.config).items():
        stack = () if group[0].layer is None else (len(group),)
        leaf = np.empty(stack + group[0].shape, dtypes[path])
        for tensor in group:
            for slab in tensor.slabs():
                leaf[slab.index] = source.read(tensor, slab)
        yield path, leaf
