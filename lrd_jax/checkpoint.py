"""Models by path or name: `load` takes converted checkpoints, Hugging Face folders, adapters and embedded models."""

import dataclasses
import hashlib
import importlib.resources
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lrd_jax.convert import ConversionError, adapters
from lrd_jax.convert.checksums import require_whole
from lrd_jax.convert.placing import place_params
from lrd_jax.convert.reader import open_source, read_config, weight_dtype
from lrd_jax.convert.store import is_checkpoint, open_stored, read_info
from lrd_jax.convert.tables import ParamPath, ReadSlab, dtypes_of, flatten, param_shapes
from lrd_jax.errors import Refused, check_function
from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.transformer import Params
from lrd_jax.pods import agree, from_first
from lrd_jax.sharding import padded_params, param_shardings
from lrd_jax.text import Tokenizer, has_tokenizer, load_tokenizer

Adapt = Callable[[ModelConfig, ReadSlab], ReadSlab]  # what reads parameters, of what reads the stored ones


def _as_stored(config: ModelConfig, read: ReadSlab) -> ReadSlab:
    return read


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model that is ready to decode.

    Attributes:
      params: nested dict of jax arrays, on the mesh if one was given.
      tokenizer: None where the folder brings none.
    """

    model: Model
    params: Params
    tokenizer: Tokenizer | None

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.model.config


def load(
    path_or_name: str | Path,
    mesh: jax.sharding.Mesh | None = None,
    dtype: DTypeLike | None = None,
    *,
    note: Callable[[str], None] = lambda message: None,
    look: Callable[[Loaded], None] = lambda empty: None,
) -> Loaded:
    """Loads a model with its parameters and tokenizer.

    Args:
      path_or_name: the name of an embedded model (`embedded_models()`), a folder that `lrd-jax convert` wrote, a
        Hugging Face folder, which is converted in memory, or a folder of adapters (docs/training.md), which are added
        to their base as it is read. A name wins over a folder of the same name; write ./name for the folder.
      mesh: where the parameters go, as `lrd_jax.sharding` divides them; None puts them on the default device.
      dtype: of the parameters. None: the stored one; but float32 for the embedded models, and on a CPU for weights
        stored in bfloat16 where there is room, because a CPU's matmuls take longer in bfloat16 (docs/performance.md)
        and the values are the same.
      look: called with the model without its parameters, before they are read: what it refuses costs no time.
      note: told, in a sentence, where None became another dtype than the stored one, or should have.

    Raises:
      ValueError: there is no such model, or every problem that was found in its folder; of adapters, their base is
        absent or has other weights; or the processes of the mesh find different files there.
    """
    check_function(note, "note")
    check_function(look, "look")
    folder = find_model(path_or_name)
    if mesh is not None and not isinstance(mesh, jax.sharding.Mesh):
        raise Refused(f"mesh must be one of lrd_jax.make_mesh, or None, got {mesh!r:.200}")
    dtype = None if dtype is None else _weights_in(dtype)
    given = folder
    folder, adapt = _with_base(given) if adapters.is_adapter(given) else (given, _as_stored)
    if dtype is None and folder in embedded_models().values():
        dtype = "float32"  # they are small, and in it padding a prompt cannot tip a close choice
    shared = mesh is not None and mesh.is_multi_process
    if shared:
        agree("checkpoints", fingerprint(folder) | fingerprint(given))

    def faster(config: ModelConfig, stored: dict[ParamPath, np.dtype]) -> str | None:
        if not shared:
            return _faster_dtype(config, stored, mesh, note)
        return from_first(lambda: _faster_dtype(config, stored, mesh, note))  # free memory differs from host to host

    found: list[Loaded] = []

    def before(config: ModelConfig) -> None:
        tokenizer = load_tokenizer(folder, config) if has_tokenizer(folder) else None
        found.append(Loaded(Model(config), {}, tokenizer))
        look(found[0])

    if is_checkpoint(folder):
        choose = None if dtype is not None else faster
        _, params = restore(folder, mesh=mesh, dtype=dtype, choose=choose, look=before, adapt=adapt)
    else:
        source = open_source(folder, uniform=dtype is None)
        config = source.config
        before(config)
        if dtype is None:
            dtype = faster(config, source.dtypes(None))
        read = adapt(config, source.read)
        params = place_params(config, source.dtypes(dtype), _shardings(config, mesh), read, _padded(config, mesh))
    return dataclasses.replace(found[0], params=params)


def restore(
    folder: Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    dtype: str | None = None,
    config: ModelConfig | None = None,
    choose: Callable[[ModelConfig, dict[ParamPath, np.dtype]], str | None] | None = None,
    look: Callable[[ModelConfig], None] = lambda config: None,
    adapt: Adapt = _as_stored,
) -> tuple[ModelConfig, Params]:
    """Config and parameters of a converted checkpoint, read straight onto the mesh.

    Args:
      choose: names a dtype in the place of None, of the config and the stored dtypes.
      look: called with the config before any parameter is read; what it raises ends all.
      adapt: stands between the stored parameters and those that are placed.
      config: what the checkpoint must be of; None takes it as its metadata says, if the config.json beside it agrees.

    Raises:
      ValueError: not a converted checkpoint, or one of another config.
    """

    info = read_info(folder)
    if config is not None:
        _require_same(folder, info.config, config, "was asked for")
    elif (folder / "config.json").is_file():
        _, beside, problems = read_config(folder)
        if beside is None:
            raise ConversionError(f"{folder} is damaged:", problems)
        beside = dataclasses.replace(beside, quantized=info.config.quantized)  # the source's file, which knows no such
        _require_same(folder, info.config, beside, "stands in config.json")
    require_whole(folder)
    look(info.config)
    stored = open_stored(folder, info.config)
    if choose is not None:
        dtype = choose(info.config, stored.dtypes)
    dtypes = (
        stored.dtypes if dtype is None else dtypes_of(info.config, dict.fromkeys(stored.dtypes, weight_dtype(dtype)))
    )
    return info.config, place_params(
        info.config, dtypes, _shardings(info.config, mesh), adapt(info.config, stored.read), _padded(info.config, mesh)
    )


def _with_base(folder: Path) -> tuple[Path, Adapt]:
    """The folder of an adapter's base, and what adds the adapter to its weights.

    Raises:
      ConversionError: there is no base at its place, or another one; or the adapter is damaged.
    """
    info = adapters.read_info(folder)
    try:
        base = find_model(info.base)
    except ConversionError:
        advice = 'put it back, or write where it is now into adapter.json, as "base"'
        raise ConversionError(f"{folder} is an adapter of {info.base}, which is not there:", [advice]) from None
    adapters.require_base(folder, info, base)

    def adapt(config: ModelConfig, read: ReadSlab) -> ReadSlab:
        return adapters.merged(read, adapters.read_factors(folder, info, config), info.scale)

    return base, adapt


def _weights_in(dtype: DTypeLike) -> str:
    """The name of a dtype for weights; raises ValueError for any other."""
    try:
        name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    return weight_dtype(name).name


def fingerprint(folder: Path) -> dict[str, Any]:
    """What tells a model's folder from another, by file: its size, and a hash of it, of safetensors of the header.

    The metadata of a converted checkpoint holds the hashes of its tensors.
    """
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "_CHECKPOINT_METADATA")
    files = [folder / name for name in names if (folder / name).is_file()]
    return {file.name: _digest(file) for file in [*files, *sorted(folder.glob("*.safetensors"))]}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        if file.suffix == ".safetensors":
            length = int.from_bytes(content.read(8), "little")
            found = hashlib.sha256(content.read(min(length, 1 << 26)))
        else:
            found = hashlib.file_digest(content, "sha256")
    return f"{file.stat().st_size} bytes, {found.hexdigest()[:12]}"


def embedded_models() -> dict[str, Path]:
    """The models that come with the package, and their folders."""
    root = Path(str(importlib.resources.files("lrd_jax"))) / "embedded"
    return {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}


def find_model(path_or_name: str | Path) -> Path:
    """The folder of an embedded model of that name, else the folder at that path.

    Raises:
      ValueError: there is neither.
    """
    if not isinstance(path_or_name, str | os.PathLike) or not str(path_or_name):
        raise ConversionError(f"there is no model {path_or_name!r}", ["give a name, or the path of a folder"])
    embedded = embedded_models()
    if isinstance(path_or_name, str) and path_or_name in embedded:
        return embedded[path_or_name]
    if Path(path_or_name).is_dir():
        return Path(path_or_name)
    raise ConversionError(
        f"there is no model {str(path_or_name)!r}; it may be",
        [
            f"the name of an embedded model: {', '.join(embedded) or 'none is installed'}",
            "the path of a folder that `lrd-jax convert` wrote (weights on the Hugging Face hub: convert them first)",
            "the path of a Hugging Face folder with config.json and safetensors files",
        ],
    )


def _require_same(folder: Path, got: ModelConfig, wanted: ModelConfig, where: str) -> None:
    if got == wanted:
        return
    got_json, wanted_json = got.to_json(), wanted.to_json()
    differ = [key for key in got_json if got_json[key] != wanted_json[key]]
    raise ConversionError(
        f"{folder} holds another model:",
        [
            "its metadata says " + ", ".join(f"{key}={got_json[key]!r}" for key in differ),
            f"what {where}: " + ", ".join(f"{key}={wanted_json[key]!r}" for key in differ),
        ],
    )


def _shardings(config: ModelConfig, mesh: jax.sharding.Mesh | None) -> dict[ParamPath, jax.sharding.Sharding]:
    """A sharding for every parameter, by its path."""
    if mesh is None:
        here = jax.sharding.SingleDeviceSharding(jnp.zeros(()).device)  # the default device
        return dict.fromkeys(param_shapes(config), here)
    return flatten(param_shardings(Model(config), mesh))


def _padded(config: ModelConfig, mesh: jax.sharding.Mesh | None) -> dict[ParamPath, tuple[int, ...]] | None:
    """The shape of every parameter on the mesh, by its path."""
    if mesh is None:
        return None
    return {path: leaf.shape for path, leaf in flatten(padded_params(Model(config), mesh)).items()}


def _faster_dtype(
    config: ModelConfig,
    stored: dict[ParamPath, np.dtype],
    mesh: jax.sharding.Mesh | None,
    note: Callable[[str], None],
) -> str | None:
    """float32 for weights that would otherwise be bfloat16 on a CPU, if there is room; else None."""
    devices = jnp.zeros(()).devices() if mesh is None else mesh.devices.flat
    if jnp.bfloat16 not in stored.values() or any(device.platform != "cpu" for device in devices):
        return None
    dtypes = dtypes_of(config, dict.fromkeys(stored, np.dtype(np.float32)))
    wanted = sum(dtypes[path].itemsize * math.prod(shape) for path, shape in param_shapes(config).items())
    gib = f"{wanted / 2**30:.1f} GiB"
    if wanted > _free_bytes():
        note(f"bfloat16 is slow on a CPU; the weights in float32 would need {gib} of memory")
        return None
    note(f"weights go from bfloat16 to float32 ({gib}), which a CPU multiplies faster")
    return "float32"


def _free_bytes() -> int:
    """Memory that nobody uses now; all there is where the system does not say."""
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
