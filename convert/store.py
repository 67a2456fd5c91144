"""An Orbax v1 checkpoint written and read one slab at a time.

`ocp.save` takes whole arrays, and a stacked parameter of an 8B model is 3.2 GB. So the arrays are written with
tensorstore in the layout that Orbax itself writes (zarr3 in OCDBT, one array per parameter, named by its path), and
Orbax then adds its metadata from a save of placeholders: until that last step the folder is no checkpoint.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts

from lrd_jax.convert.safetensors_io import ConversionError
from lrd_jax.convert.tables import ParamPath, Tensor, param_shapes, unflatten
from lrd_jax.models import ModelConfig

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
      tensors: for each source tensor its "dtype" and "shape" in the file, and the "sha256" of its bytes there.
    """

    source: str
    revision: str | None
    config: ModelConfig
    dtype: str | None
    tensors: Mapping[str, Mapping[str, Any]]

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
        return cls(
            source=fields["source"],
            revision=fields["revision"],
            config=ModelConfig.from_json(fields["config"]),
            dtype=fields["dtype"],
            tensors=fields["tensors"],
        )


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder has the files by which Orbax knows a finished checkpoint."""
    return any((folder / name).exists() for name in ("orbax.checkpoint", "_CHECKPOINT_METADATA"))


def read_info(folder: Path) -> CheckpointInfo:
    """What a converted checkpoint says of itself.

    Raises:
      ConversionError: not an Orbax checkpoint, or not one that was converted here.
    """
    if not is_checkpoint(folder):
        raise ConversionError(f"{folder} is not an Orbax checkpoint", ["convert a Hugging Face folder to make one"])
    try:  # not ocp.metadata, which opens every array and complains at length on standard error of what it cannot
        fields = json.loads((folder / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    except (ValueError, KeyError, OSError) as error:
        raise ConversionError(f"{folder} is an Orbax checkpoint, but its metadata is damaged", [repr(error)]) from error
    if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
        raise ConversionError(
            f"{folder} is an Orbax checkpoint, but not one that was converted here",
            [f"its metadata should say format {FORMAT!r} and the model's config; it says {fields!r:.200}"],
        )
    if fields["version"] != VERSION:
        problem = f"its format version is {fields['version']}, this release reads {VERSION}: convert it again"
        raise ConversionError(f"{folder} cannot be read", [problem])
    return CheckpointInfo.from_json(fields)


def create_array(folder: Path, tensor: Tensor, layers: int | None, dtype: np.dtype) -> ts.TensorStore:
    """An empty array for the parameter that `tensor` is a part of, in chunks of one slab.

    Uncompressed: compression saves a fifth of bfloat16 weights and takes four times as long.
    """
    chunk = list(tensor.shape)
    chunk[tensor.slab_axis] = tensor.slab_length
    stack = ([], []) if layers is None else ([layers], [1])
    metadata = {
        "shape": stack[0] + list(tensor.shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": stack[1] + chunk}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    # Orbax takes a chunk that is absent for lost data, so zeros are stored too.
    spec = _spec(folder, tensor.path) | {"metadata": metadata, "store_data_equal_to_fill_value": True}
    with as_conversion_error(f"cannot write to {folder}"):
        return ts.open(spec, create=True).result()


def write_slab(array: ts.TensorStore, index: tuple[int | slice, ...], values: np.ndarray) -> None:
    with as_conversion_error("cannot write the checkpoint"):
        array[index].write(values).result()


def read_slab(array: ts.TensorStore, index: tuple[int | slice, ...]) -> np.ndarray:
    with as_conversion_error("cannot read the checkpoint"):
        return array[index].read().result()


@contextlib.contextmanager
def as_conversion_error(what: str) -> Iterator[None]:
    """Turns what tensorstore raises, a full disk or a lost file for one, into an error that says what was tried."""
    try:
        yield
    except ValueError as error:
        raise ConversionError(what, [_first_words(error)]) from error


def _first_words(error: ValueError) -> str:
    return str(error).split(" [tensorstore_spec")[0]


def open_array(folder: Path, path: ParamPath) -> ts.TensorStore:
    """The array of a parameter in a checkpoint, for reading."""
    return ts.open(_spec(folder, path), open=True, read=True).result()


def open_arrays(folder: Path, config: ModelConfig) -> dict[ParamPath, ts.TensorStore]:
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
    if problems:
        raise ConversionError(f"{folder} does not hold the parameters of its config:", problems)
    return arrays


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
        ocp.save(str(skeleton.resolve()), placeholders, custom_metadata=info.to_json())
    for file in (skeleton / _STATE).glob("_*"):
        file.rename(folder / _STATE / file.name)
    for file in [file for file in skeleton.iterdir() if file.is_file()]:
        file.rename(folder / file.name)
    shutil.rmtree(skeleton)
