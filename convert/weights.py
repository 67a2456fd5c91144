"""The weights of a folder, converted or as on the Hugging Face hub: read alike, and told apart by their bytes."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lrd_jax.convert.checksums import require_whole
from lrd_jax.convert.reader import Source, open_source
from lrd_jax.convert.safetensors_io import NAMES
from lrd_jax.convert.store import CheckpointInfo, Stored, bytes_of, is_checkpoint, open_stored, read_info
from lrd_jax.convert.tables import ParamPath, ReadSlab, Tensor, tensors
from lrd_jax.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A folder's weights, open for reading.

    Attributes:
      dtypes: of every parameter, as stored.
      read: the values at a slab's `index` of its parameter.
      sha256: of a tensor's bytes as a safetensors file of it holds them.
    """

    config: ModelConfig
    dtypes: Mapping[ParamPath, np.dtype]
    read: ReadSlab
    sha256: Callable[[Tensor], str]


def open_weights(folder: Path) -> Weights:
    """Opens either form.

    Raises:
      ConversionError: with every problem that was found.
    """
    if not is_checkpoint(folder):
        source = open_source(folder, uniform=False)
        dtypes = source.dtypes(None)
        return Weights(config=source.config, dtypes=dtypes, read=source.read, sha256=lambda t: _sha256(source, t))
    info = read_info(folder)
    require_whole(folder)
    stored = open_stored(folder, info.config)
    return Weights(
        config=info.config, dtypes=stored.dtypes, read=stored.read, sha256=lambda t: _stored_sha256(info, stored, t)
    )


def fingerprint(folder: Path) -> str:
    """One SHA-256 for all the weights of a folder: of the names, dtypes, shapes and hashes of its tensors.

    A Hugging Face folder and the checkpoint that was converted from it without a cast have the same. That of a
    converted checkpoint comes from its metadata; a Hugging Face folder is read whole.
    """
    weights = open_weights(folder)
    found = {
        tensor.name: (NAMES[weights.dtypes[tensor.path]], tensor.file_shape, weights.sha256(tensor))
        for tensor in tensors(weights.config)
    }
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _sha256(source: Source, tensor: Tensor) -> str:
    found = hashlib.sha256()
    for _, rows in source.slabs(tensor):
        found.update(bytes_of(rows))
    return found.hexdigest()


def _stored_sha256(info: CheckpointInfo, stored: Stored, tensor: Tensor) -> str:
    return info.stored_sha256(tensor, stored.dtypes[tensor.path]) or stored.sha256(tensor)
