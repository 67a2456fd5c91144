"""What every command that decodes can be told. Imports nothing heavy: `lrd-jax --help` parses these classes alone."""

import dataclasses
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Fixed, Suppress, arg

from lrd_jax.durable import check_writable
from lrd_jax.errors import Refused

_NONE = "(default: what launched it, if anything)"
_LONGEST_NAME = 255  # bytes, of Linux's file systems
MESH_AXES = ("data", "fsdp", "tensor")
STORED_DTYPE = arg(metavar="DTYPE", help_behavior_hint="(default: the stored one, or float32 where that is faster)")


def check_types(options: Any) -> None:
    """Raises ValueError where a field of options does not hold what its annotation says."""
    for name, kind in typing.get_type_hints(type(options)).items():
        if not _fits(value := getattr(options, name), kind):
            wanted = getattr(kind, "__name__", None) if typing.get_origin(kind) is None else None
            raise Refused(f"{name}={value!r:.80} must be of type {wanted or kind}")


def _fits(value: Any, kind: Any) -> bool:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else origin or kind)


def check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**63:
        raise Refused(f"seed={seed} must be in [0, 2^63)")


def check_names(path: Path, name: str) -> None:
    """Raises ValueError for names that no file can have: the folders above would be made, and stay."""
    for part in path.parts:
        if len(os.fsencode(part)) > _LONGEST_NAME:
            raise Refused(f"{name}: {part:.40}... is longer than the {_LONGEST_NAME} bytes of a name; name another one")


def check_folder(path: Path, name: str) -> None:
    """Raises ValueError where a folder can neither be nor be made."""
    check_names(path, name)
    there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise Refused(f"{name}: {there} is a file, where a folder was wanted; name another one")
    if there != path:
        check_writable(there, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Which processes are one program, for a command that was started on every host; see docs/pods.md.

    Attributes:
      coordinator: of several processes that are one program, the address of process 0.
      num_processes: how many they are.
      process_id: which of them this is, from 0; process 0 prints and writes.
    """

    coordinator: Annotated[str | None, arg(metavar="HOST:PORT", help_behavior_hint=_NONE)] = None
    num_processes: Annotated[int | None, arg(metavar="NUMBER", help_behavior_hint=_NONE)] = None
    process_id: Annotated[int | None, arg(metavar="NUMBER", help_behavior_hint=_NONE)] = None

    def __post_init__(self):
        check_types(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnMesh(Processes):
    """Processes, and how the model lies over their devices.

    Attributes:
      mesh: sizes of data (copies of the model), fsdp and tensor (parts of it) over all devices of all processes.
    """

    mesh: Annotated[str | None, arg(metavar="data=N,fsdp=N,tensor=N", help_behavior_hint="(default: one device)")] = (
        None
    )

    def __post_init__(self):
        super().__post_init__()
        if self.mesh is not None:
            mesh_sizes(self.mesh)


def mesh_sizes(text: str) -> dict[str, int]:
    """The sizes of a mesh by axis, of a text such as "data=2,tensor=4".

    Raises:
      ValueError: it is none.
    """
    if not isinstance(text, str):
        raise Refused(f"mesh={text!r:.80} must be a text such as data=2,tensor=4")
    sizes = {}
    for part in text.split(","):
        axis, _, size = (word.strip() for word in part.partition("="))
        if axis not in MESH_AXES or axis in sizes or not re.fullmatch(r"0{0,8}[1-9][0-9]{0,8}", size):
            raise Refused(
                f"mesh={text!r:.80}: {part.strip()!r:.80} is no size; give sizes of {', '.join(MESH_AXES)}, each at "
                "most once, as in --mesh data=2,tensor=4"
            )
        sizes[axis] = int(size)
    return sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """Of a command whose decoder can be changed by every field that decoders have.

    Attributes:
      changes: what is changed in the preset, by dotted or short name: see `lrd_jax.presets.preset`.
    """

    changes: Annotated[Mapping[str, Any], Fixed, Suppress] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOptions(Changes):
    """A decoder, as every command that has one names it; `lrd_jax.presets.decoder` makes it.

    Attributes:
      preset: lrd, paper, plain, fast, llada, dream, settle, klass, dus, wino, remix, prophet, daedal, dllm-cache,
        sparse-dllm, dkv-cache, the paper's settings as paper/CHECKPOINT/BENCHMARK, others' as dllm-cache/gsm8k
        (docs/decoders.md), or a preset file, such as `lrd-jax calibrate` writes.
      gen_length: positions to generate.
    """

    preset: str = "lrd"
    gen_length: int = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yours(Changes):
    """A decoder of the user's beside those that a command compares; `lrd_jax.presets.yours` makes it.

    Attributes:
      preset: of a decoder of yours beside those; it is lrd where only changes are given.
    """

    preset: Annotated[str | None, arg(help_behavior_hint="(default: none)", metavar="NAME")] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding(DecoderOptions, OnMesh):
    """Which model decodes, and how.

    Attributes:
      model: an embedded model, a converted folder or a Hugging Face folder.
      dtype: of the weights.
      seed: of the draws at a temperature, and of random orders.
      live: show the canvas settling, where the output is a terminal.
    """

    model: str = "lrd-tiny-refined"
    dtype: Annotated[str | None, STORED_DTYPE] = None
    seed: int = 0
    live: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_seed(self.seed)
