"""Which Hugging Face tensor holds which parameter: one table per family, read forwards to convert, backwards to export.

Hugging Face stores a linear layer as `[out, in]`, a block at a time; here it is `[layers, *in, *out]`, the input or the
output being split into heads.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.quantized import MATRICES, is_of_quantized, scale_of

ParamPath = tuple[str, ...]

SLAB_ELEMENTS = 1 << 24  # what is held of a tensor at once: 64 MB of float32

_TILE = 64  # rows and columns that are transposed at once


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      name: the Hugging Face tensor; `{layer}` stands for the number of the block.
      path: keys of the parameter in the nested dict.
      inputs: leading axes of the parameter (layers apart) that the matmul contracts: the file holds `[out, in]`, each
        side flattened; 0 for a bias, which is flattened. None: the file holds the parameter as it is.
    """

    name: str
    path: ParamPath
    inputs: int | None = None


_LLADA_BLOCK = "model.transformer.blocks.{layer}."
_LLAMA_BLOCK = "model.layers.{layer}."

_LLAMA_NAMES = (
    Row("model.embed_tokens.weight", ("table",)),
    Row(_LLAMA_BLOCK + "input_layernorm.weight", ("blocks", "attn_norm")),
    Row(_LLAMA_BLOCK + "self_attn.q_proj.weight", ("blocks", "q"), 1),
    Row(_LLAMA_BLOCK + "self_attn.k_proj.weight", ("blocks", "k"), 1),
    Row(_LLAMA_BLOCK + "self_attn.v_proj.weight", ("blocks", "v"), 1),
    Row(_LLAMA_BLOCK + "self_attn.q_proj.bias", ("blocks", "q_bias"), 0),
    Row(_LLAMA_BLOCK + "self_attn.k_proj.bias", ("blocks", "k_bias"), 0),
    Row(_LLAMA_BLOCK + "self_attn.v_proj.bias", ("blocks", "v_bias"), 0),
    Row(_LLAMA_BLOCK + "self_attn.o_proj.weight", ("blocks", "out"), 2),
    Row(_LLAMA_BLOCK + "post_attention_layernorm.weight", ("blocks", "mlp_norm")),
    Row(_LLAMA_BLOCK + "mlp.gate_proj.weight", ("blocks", "gate"), 1),
    Row(_LLAMA_BLOCK + "mlp.up_proj.weight", ("blocks", "up"), 1),
    Row(_LLAMA_BLOCK + "mlp.down_proj.weight", ("blocks", "down"), 1),
    Row("model.norm.weight", ("final_norm",)),
    Row("lm_head.weight", ("head",), 1),
)

TABLES = {
    "llada": (
        Row("model.transformer.wte.weight", ("table",)),
        Row(_LLADA_BLOCK + "attn_norm.weight", ("blocks", "attn_norm")),
        Row(_LLADA_BLOCK + "q_proj.weight", ("blocks", "q"), 1),
        Row(_LLADA_BLOCK + "k_proj.weight", ("blocks", "k"), 1),
        Row(_LLADA_BLOCK + "v_proj.weight", ("blocks", "v"), 1),
        Row(_LLADA_BLOCK + "q_proj.bias", ("blocks", "q_bias"), 0),
        Row(_LLADA_BLOCK + "k_proj.bias", ("blocks", "k_bias"), 0),
        Row(_LLADA_BLOCK + "v_proj.bias", ("blocks", "v_bias"), 0),
        Row(_LLADA_BLOCK + "attn_out.weight", ("blocks", "out"), 2),
        Row(_LLADA_BLOCK + "ff_norm.weight", ("blocks", "mlp_norm")),
        Row(_LLADA_BLOCK + "ff_proj.weight", ("blocks", "gate"), 1),
        Row(_LLADA_BLOCK + "up_proj.weight", ("blocks", "up"), 1),
        Row(_LLADA_BLOCK + "ff_out.weight", ("blocks", "down"), 1),
        Row("model.transformer.ln_f.weight", ("final_norm",)),
        Row("model.transformer.ff_out.weight", ("head",), 1),
    ),
    "dream": _LLAMA_NAMES,
    "illada": _LLAMA_NAMES,
    "fast-dllm-v2": _LLAMA_NAMES,
}


@dataclasses.dataclass(frozen=True)
class Slab:
    """Whole rows of a tensor's first axis in the file, and where they lie in the parameter array."""

    rows: slice
    index: tuple[int | slice, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One Hugging Face tensor and its place in the parameters.

    Attributes:
      name: its name in the file.
      path: keys of its parameter.
      layer: its index on the parameter's leading axis; None where the parameter is not stacked.
      shape: shape of its part of the parameter, without the layer axis.
      inputs: see `Row`.
    """

    name: str
    path: ParamPath
    layer: int | None
    shape: tuple[int, ...]
    inputs: int | None

    @property
    def file_shape(self) -> tuple[int, ...]:
        if self.inputs is None:
            return self.shape
        sides = math.prod(self.shape[self.inputs :]), math.prod(self.shape[: self.inputs])
        return sides if self.inputs else sides[:1]

    @property
    def slab_axis(self) -> int:
        """The axis of `shape` that the rows of the file run along."""
        return self.inputs or 0

    @property
    def slab_length(self) -> int:
        """How many indices of `slab_axis` make a slab."""
        length = self.shape[self.slab_axis]
        return max(1, min(length, SLAB_ELEMENTS * length // math.prod(self.shape)))

    def slabs(self) -> Iterator[Slab]:
        """Cuts the tensor into slabs, in file order."""
        axis, length = self.slab_axis, self.shape[self.slab_axis]
        rows_per_index = self.file_shape[0] // length
        for start in range(0, length, self.slab_length):
            stop = min(start + self.slab_length, length)
            index = tuple(slice(start, stop) if i == axis else slice(None) for i in range(len(self.shape)))
            layer = () if self.layer is None else (self.layer,)
            yield Slab(slice(start * rows_per_index, stop * rows_per_index), layer + index)

    def to_params(self, rows: np.ndarray) -> np.ndarray:
        """Rows as in the file -> the values at a slab's `index`."""
        shape = list(self.shape)
        shape[self.slab_axis] = -1
        if self.inputs is not None:
            rows = _turned(rows.reshape(len(rows), -1))
        return np.ascontiguousarray(rows).reshape(shape)

    def to_file(self, values: np.ndarray) -> np.ndarray:
        """The values at a slab's `index` -> rows as in the file."""
        if self.inputs is not None:
            values = _turned(values.reshape(math.prod(self.shape[: self.inputs]), -1))
        return np.ascontiguousarray(values).reshape(-1, *self.file_shape[1:])


def _turned(matrix: np.ndarray) -> np.ndarray:
    """`matrix.T` as an array of its own, tile by tile: tiles stay in the cache, which is three times as fast."""
    bits = np.ascontiguousarray(matrix).view(f"u{matrix.itemsize}")
    out = np.empty(bits.shape[::-1], bits.dtype)
    for i in range(0, bits.shape[0], _TILE):
        for j in range(0, bits.shape[1], _TILE):
            out[j : j + _TILE, i : i + _TILE] = bits[i : i + _TILE, j : j + _TILE].T
    return out.view(matrix.dtype)


ReadSlab = Callable[[Tensor, Slab], np.ndarray]  # the values at a slab's `index` of the parameter


@functools.cache
def tensors(config: ModelConfig) -> tuple[Tensor, ...]:
    """Every tensor of a checkpoint with this config, grouped by parameter, layers in order."""
    shapes = param_shapes(config)
    table = [row for row in _rows(config) if row.path in shapes]
    assert {row.path for row in table} == set(shapes), "the table misses a parameter of the model"
    found = []
    for row in table:
        shape = shapes[row.path]
        if "{layer}" in row.name:
            found += [Tensor(row.name.format(layer=i), row.path, i, shape[1:], row.inputs) for i in range(shape[0])]
        else:
            found.append(Tensor(row.name, row.path, None, shape, row.inputs))
    return tuple(found)


def _rows(config: ModelConfig) -> Iterator[Row]:
    """The family's table, and the scales of quantised matrices, which no file of the family's own holds."""
    for row in TABLES[config.family]:
        yield row
        *blocks, name = row.path
        if config.quantized is not None and name in MATRICES:
            yield Row(f"{row.name}_scale", (*blocks, scale_of(name)), 0)


def dtypes_of(config: ModelConfig, wanted: Mapping[ParamPath, np.dtype]) -> dict[ParamPath, np.dtype]:
    """The dtype of every parameter: the wanted one, but of quantised matrices and their scales their own."""
    leaves = flatten(Model(config).abstract_params())
    kept = config.quantized is not None
    return {path: leaf.dtype if kept and is_of_quantized(path) else wanted[path] for path, leaf in leaves.items()}


def by_param(config: ModelConfig) -> dict[ParamPath, tuple[Tensor, ...]]:
    """The tensors that make up each parameter."""
    groups: dict[ParamPath, list[Tensor]] = {}
    for tensor in tensors(config):
        groups.setdefault(tensor.path, []).append(tensor)
    return {path: tuple(group) for path, group in groups.items()}


def param_shapes(config: ModelConfig) -> dict[ParamPath, tuple[int, ...]]:
    """Shape of every parameter by its path."""
    return {path: leaf.shape for path, leaf in flatten(Model(config).abstract_params()).items()}


def flatten(tree: dict, prefix: ParamPath = ()) -> dict[ParamPath, Any]:
    """A nested dict by paths."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
    return flat


def unflatten(flat: Mapping[ParamPath, Any]) -> dict:
    """The nested dict of paths and values."""
    tree: dict = {}
    for path, value in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree
