"""Low-rank adapters in a folder of their own, and weights with them added, slab by slab.

`adapter.json` names the base by its place and its fingerprint. `adapter.safetensors` holds float32 tensors, named and
laid out as PEFT's but for its prefix: `<module>.lora_A.weight` `[r, in]` and `<module>.lora_B.weight` `[out, r]`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrd_jax.convert.folders import appearing
from lrd_jax.convert.reader import weight_dtype
from lrd_jax.convert.safetensors_io import ConversionError, header_bytes, parse_json, read_header
from lrd_jax.convert.tables import ParamPath, ReadSlab, Slab, Tensor, by_param, flatten
from lrd_jax.convert.weights import Weights, fingerprint
from lrd_jax.convert.writer import write_folder
from lrd_jax.models import ModelConfig

FORMAT = "lrd-jax adapter"
VERSION = 1
_INFO, _TENSORS = "adapter.json", "adapter.safetensors"
_KINDS = {"base": str, "fingerprint": str, "rank": int, "alpha": float}

Factors = tuple[np.ndarray, np.ndarray]  # A [layers, *in, r] and B [layers, r, *out] of a parameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What an adapter says of itself.

    Attributes:
      base: an embedded model's name, or the path of a folder.
      fingerprint: of the base's weights, see `lrd_jax.convert.weights.fingerprint`.
    """

    base: str
    fingerprint: str
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """Of the product of A and B."""
        return self.alpha / self.rank


def is_adapter(folder: Path) -> bool:
    """Whether the folder says of itself that it holds adapters."""
    return (folder / _INFO).is_file()


def write_adapter(dest: Path, info: AdapterInfo, config: ModelConfig, adapters: dict[str, Any]) -> None:
    """Writes adapters, a nested dict with `a` and `b` in the place of a parameter, as a folder that appears whole."""
    specs: dict[str, np.ndarray] = {}
    for path, (a, b) in _factors(adapters).items():
        for tensor in by_param(config)[path]:
            specs[_name(tensor, "A")] = a[tensor.layer].reshape(-1, info.rank).T
            specs[_name(tensor, "B")] = b[tensor.layer].reshape(info.rank, -1).T
    with appearing(dest) as work:
        with (work / _TENSORS).open("wb") as file:
            file.write(header_bytes({name: (values.dtype, values.shape) for name, values in specs.items()}))
            for values in specs.values():
                file.write(values.tobytes())
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(info)}
        (work / _INFO).write_text(json.dumps(content, indent=2) + "\n")


def write_merged(
    dest: Path, info: AdapterInfo, weights: Weights, adapters: dict[str, Any], *, dtype: str, tokenizer: Path
) -> None:
    """Writes the base with adapters added as a Hugging Face folder, cast to a dtype after the sum in float32."""
    read = merged(weights.read, _factors(adapters), info.scale)
    dtypes = dict.fromkeys(weights.dtypes, weight_dtype(dtype))
    write_folder(weights.config, dtypes, read, dest, tokenizer=tokenizer)


def read_info(folder: Path) -> AdapterInfo:
    """What an adapter says of itself.

    Raises:
      ConversionError: its adapter.json is damaged, or of another release.
    """
    try:
        fields = parse_json((folder / _INFO).read_bytes())
        if fields["format"] != FORMAT or fields["version"] != VERSION:
            raise KeyError(f"format {fields['format']!r}, version {fields['version']!r}; wanted {FORMAT!r}, {VERSION}")
        info = AdapterInfo(**{name: kind(fields[name]) for name, kind in _KINDS.items()})
        if info.rank < 1 or not math.isfinite(info.scale):
            raise KeyError(f"rank {info.rank}, alpha {info.alpha}")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConversionError(f"{folder} holds no adapter that this release reads:", [f"{_INFO}: {error}"]) from None
    return info


def require_base(folder: Path, info: AdapterInfo, base: Path) -> None:
    """Raises ConversionError where the base's weights are not those that the adapter was trained beside."""
    found = fingerprint(base)
    if found != info.fingerprint:
        raise ConversionError(
            f"{folder} is an adapter of other weights than those in {base}:",
            [
                f"it was trained beside weights with fingerprint {info.fingerprint}, there they have {found}",
                f'put the base back, or write where it is now into {folder / _INFO}, as "base"',
            ],
        )


def read_factors(folder: Path, info: AdapterInfo, config: ModelConfig) -> dict[ParamPath, Factors]:
    """The factors of every adapted parameter.

    Raises:
      ConversionError: the file is damaged, or its tensors are not adapters of the config's blocks.
    """
    if not (folder / _TENSORS).is_file():
        raise ConversionError(f"{folder} is damaged:", [f"{_TENSORS} is absent"])
    entries, factors, problems = read_header(folder / _TENSORS), {}, []
    used = set()
    for path, group in by_param(config).items():
        names = {kind: [_name(tensor, kind) for tensor in group] for kind in "AB"}
        if group[0].layer is None or not group[0].inputs or not (entries.keys() & {*names["A"], *names["B"]}):
            continue
        used |= {*names["A"], *names["B"]}
        out, inputs = group[0].file_shape
        wanted = {"A": (info.rank, inputs), "B": (out, info.rank)}
        for name in (*names["A"], *names["B"]):
            kind = "A" if name in names["A"] else "B"
            got = (entries[name].dtype, entries[name].shape) if name in entries else "absent"
            if got != ("F32", wanted[kind]):
                problems.append(f"{name}: got {got}, wanted {('F32', wanted[kind])}")
        if not problems:
            stacked = {
                kind: np.stack([entries[name].read_rows(slice(0, wanted[kind][0])).T for name in names[kind]])
                for kind in "AB"
            }
            shape, cut = group[0].shape, group[0].inputs
            a = stacked["A"].reshape(len(group), *shape[:cut], info.rank)
            factors[path] = a, stacked["B"].reshape(len(group), info.rank, *shape[cut:])
    problems += [f"{name} is of no block's matrix" for name in sorted(entries.keys() - used)]
    if problems:
        raise ConversionError(f"{folder / _TENSORS} does not hold adapters of its base:", problems)
    return factors


def merged(read: ReadSlab, factors: Mapping[ParamPath, Factors], scale: float) -> ReadSlab:
    """Reads the base with its adapters added, in float32 where there are any."""

    def with_adapters(tensor: Tensor, slab: Slab) -> np.ndarray:
        values = read(tensor, slab)
        if tensor.path not in factors:
            return values
        a, b = (factor[tensor.layer] for factor in factors[tensor.path])
        rank = a.shape[-1]
        columns = b[(slice(None), *slab.index[1 + (tensor.inputs or 0) :])].reshape(rank, -1)
        added = np.float32(scale) * (a.reshape(-1, rank) @ columns)
        return values.astype(np.float32) + added.reshape(values.shape)

    return with_adapters


def _factors(adapters: dict[str, Any]) -> dict[ParamPath, Factors]:
    flat = flatten(adapters)
    paths = dict.fromkeys(path[:-1] for path in flat)
    return {path: (np.asarray(flat[*path, "a"]), np.asarray(flat[*path, "b"])) for path in paths}


def _name(tensor: Tensor, kind: str) -> str:
    return f"{tensor.name.removesuffix('.weight')}.lora_{kind}.weight"
