"""An Orbax v1 checkpoint written and read one slab at a time.

`ocp.save` takes whole arrays, and a stacked parameter of an 8B model is 3.2 GB. So the arrays are written with
tensorstore in the layout that Orbax itself writes (zarr3 in OCDBT, one array per parameter, named by its path), and
Orbax then adds its metadata from a save of placeholders: until that last step the folder is no checkpoint.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts

from lrd_jax.convert.safetensors_io import DTYPES, NAMES, ConversionError, parse_json
from lrd_jax.convert.tables import ParamPath, Slab, Tensor, param_shapes, tensors, unflatten
from lrd_jax.models import ModelConfig
from lrd_jax.models.quantized import MATRICES

FORMAT = "lrd-jax checkpoint"
VERSION = 1
_STATE = "state"  # the name under which `ocp.save` keeps a tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a converted checkpoint says of itself, in Orbax's custom metadata.

    Attributes:
      source: the folder or hub id that it was converted from.
      revision: the commit on the hub; None for a local folder.
      dtype: the dtype that was asked for; None where each tensor kept its own.
      tensors: for each source tensor its "dtype" and "shape" in the file, and the "sha256" of its bytes there; after a
        cast, to integers for one, also "cast_sha256", that of the bytes it became, in the file's layout. The scales of
        integers stand there as if the file had held them.
    """

    source: str
    revision: str | None
    config: ModelConfig
    dtype: str | None
    tensors: Mapping[str, Mapping[str, Any]]

    def stored_sha256(self, tensor: Tensor, dtype: np.dtype) -> str | None:
        """What the hash of a tensor stored in that dtype must be; None where a release before this cast it."""
        said = self.tensors[tensor.name]
        return said.get("cast_sha256", said["sha256"] if said["dtype"] == NAMES[dtype] else None)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "revision": self.revision,
            "config": self.config.to_json(),
            "dtype": self.dtype,
            "tensors": dict(self.tensors),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "CheckpointInfo":
        config = ModelConfig.from_json(fields["config"])
        for tensor in tensors(config):
            if not {"dtype", "shape", "sha256"} <= fields["tensors"][tensor.name].keys():
                raise KeyError(tensor.name)
        return cls(
            source=fields["source"],
            revision=fields["revision"],
            config=config,
            dtype=fields["dtype"],
            tensors=fields["tensors"],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """The arrays of a converted checkpoint, open for reading."""

    folder: Path
    arrays: Mapping[ParamPath, ts.TensorStore]

    @property
    def dtypes(self) -> dict[ParamPath, np.dtype]:
        return {path: array.dtype.numpy_dtype for path, array in self.arrays.items()}

    def read(self, tensor: Tensor, slab: Slab) -> np.ndarray:
        """The values at a slab's `index` of its parameter.

        Raises:
          ConversionError: they cannot be read, or are not what was written.
        """
        try:
            return self.arrays[tensor.path][slab.index].read().result()
        except ValueError as error:
            raise ConversionError(f"{self.folder} is damaged:", [f"{tensor.name}: {_first_words(error)}"]) from error

    def sha256(self, tensor: Tensor) -> str:
        """The hash of a tensor as its parameter holds it, in the layout of the file."""
        found = hashlib.sha256()
        for slab in tensor.slabs():
            found.update(bytes_of(tensor.to_file(self.read(tensor, slab))))
        return found.hexdigest()


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder has the files by which Orbax knows a finished checkpoint."""
    return any(os.path.lexists(folder / name) for name in ("orbax.checkpoint", "_CHECKPOINT_METADATA"))


def read_info(folder: Path) -> CheckpointInfo:
    """What a converted checkpoint says of itself.

    Raises:
      ConversionError: not an Orbax checkpoint, or not one that was converted here, or it holds what is no file.
    """
    if not is_checkpoint(folder):
        raise ConversionError(f"{folder} is not an Orbax checkpoint", ["convert a Hugging Face folder to make one"])
    if strange := [path for path in folder.rglob("*") if not (path.is_file() or path.is_dir())]:  # a read may never end
        problems = [f"{path.relative_to(folder)} is neither a file nor a folder" for path in sorted(strange)]
        raise ConversionError(f"{folder} is damaged:", problems)
    try:  # not ocp.metadata, which opens every array and complains at length on standard error of what it cannot
        fields = parse_json((folder / "_CHECKPOINT_METADATA").read_bytes())["custom_metadata"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConversionError(f"{folder} is an Orbax checkpoint, but its metadata is damaged", [repr(error)]) from error
    if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
        raise ConversionError(
            f"{folder} is an Orbax checkpoint, but not one that was converted here",
            [f"its metadata should say format {FORMAT!r} and the model's config; it says {fields!r:.200}"],
        )
    if fields.get("version") != VERSION:
        problem = f"its format version is {fields.get('version')}, this release reads {VERSION}: convert it again"
        raise ConversionError(f"{folder} cannot be read", [problem])
    try:
        return CheckpointInfo.from_json(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{folder} is an Orbax checkpoint, but its metadata is damaged", [repr(error)]) from error


def create_array(folder: Path, tensor: Tensor, layers: int | None, dtype: np.dtype) -> ts.TensorStore:
    """An empty array for the parameter that `tensor` is a part of, in chunks of one slab.

    Uncompressed: compression saves a fifth of bfloat16 weights and takes four times as long. Every chunk ends with its
    CRC-32C, which whoever reads it checks.
    """
    chunk = list(tensor.shape)
    chunk[tensor.slab_axis] = tensor.slab_length
    stack = ([], []) if layers is None else ([layers], [1])
    metadata = {
        "shape": stack[0] + list(tensor.shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": stack[1] + chunk}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    # Orbax takes a chunk that is absent for lost data, so zeros are stored too.
    spec = _spec(folder, tensor.path) | {"metadata": metadata, "store_data_equal_to_fill_value": True}
    with as_conversion_error(f"cannot write to {folder}"):
        return ts.open(spec, create=True).result()


def write_slab(array: ts.TensorStore, index: tuple[int | slice, ...], values: np.ndarray) -> None:
    with as_conversion_error("cannot write the checkpoint"):
        array[index].write(values).result()


def bytes_of(rows: np.ndarray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def as_conversion_error(what: str) -> Iterator[None]:
    """Turns what tensorstore raises, a full disk or a lost file for one, into an error that says what was tried."""
    try:
        yield
    except ValueError as error:
        raise ConversionError(what, [_first_words(error)]) from error


def _first_words(error: Exception) -> str:
    return str(error).split(" [tensorstore_spec")[0]


def open_array(folder: Path, path: ParamPath) -> ts.TensorStore:
    """The array of a parameter in a checkpoint, for reading."""
    return ts.open(_spec(folder, path), open=True, read=True).result()


def open_stored(folder: Path, config: ModelConfig) -> Stored:
    """Every array of a checkpoint.

    Raises:
      ConversionError: they are not the parameters of the config.
    """
    arrays, problems = {}, []
    for path, wanted in param_shapes(config).items():
        try:
            arrays[path] = open_array(folder, path)
        except ValueError as error:
            problems.append(f"{'.'.join(path)} cannot be opened: {_first_words(error)}")
            continue
        if arrays[path].shape != wanted:
            problems.append(f"{'.'.join(path)} has shape {list(arrays[path].shape)}, wanted {list(wanted)}")
        if not _is_right(config, path, arrays[path].dtype.numpy_dtype):
            problems.append(f"{'.'.join(path)} has dtype {arrays[path].dtype.name}, wanted one for weights")
    if problems:
        raise ConversionError(f"{folder} does not hold the parameters of its config:", problems)
    return Stored(folder=folder, arrays=arrays)


def _is_right(config: ModelConfig, path: ParamPath, dtype: np.dtype) -> bool:
    integers = config.quantized is not None and path[-1] in MATRICES
    return dtype == np.int8 if integers else dtype in DTYPES.values()


def _spec(folder: Path, path: ParamPath) -> dict[str, Any]:
    base = {"driver": "file", "path": f"{folder.resolve()}/{_STATE}/"}
    kvstore = {"driver": "ocdbt", "base": base, "path": ".".join(path) + "/"}
    return {"driver": "zarr3", "kvstore": kvstore}


def finish(folder: Path, dtypes: Mapping[ParamPath, np.dtype], info: CheckpointInfo) -> None:
    """Makes a checkpoint of a folder whose arrays are complete: everything in it that tells Orbax so, metadata last."""
    from orbax.checkpoint import v1 as ocp  # slow to import, and needed by those alone who write

    skeleton = folder / "skeleton"
    with jax.default_device(jax.devices("cpu")[0]):  # any machine has that one to restore to
        placeholders = unflatten({path: jnp.zeros(1, dtype) for path, dtype in dtypes.items()})
        with _settled(f"cannot write to {folder.parent}"):
            ocp.save(str(skeleton.resolve()), placeholders, custom_metadata=info.to_json())
    for file in (skeleton / _STATE).glob("_*"):
        file.rename(folder / _STATE / file.name)
    for file in [file for file in skeleton.iterdir() if file.is_file()]:
        file.rename(folder / file.name)
    shutil.rmtree(skeleton)


@contextlib.contextmanager
def _settled(what: str) -> Iterator[None]:
    """Makes one error of a save that fails in several threads at once, and waits until none of them writes any more."""
    before, log = threading.enumerate(), logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        for thread in threading.enumerate():
            if thread not in before:
                thread.join(timeout=5)
        raise ConversionError(what, [_first_words(error)]) from error
    finally:
        log.setLevel(level)
