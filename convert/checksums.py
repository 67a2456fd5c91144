"""`checksums.json` of a converted checkpoint: the size of every file, and the SHA-256 of all but the arrays' data.

Those are hashed elsewhere: every chunk carries its CRC-32C, which is checked whenever it is read, and every tensor's
SHA-256 stands in the checkpoint's metadata. A lost or cut file is found by its size before anything is read.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lrd_jax.convert.safetensors_io import ConversionError, parse_json
from lrd_jax.errors import Refused

NAME = "checksums.json"
_DATA = "state/d/"


def write_checksums(folder: Path) -> None:
    """Says what every file of a finished checkpoint is."""
    files = {
        name: {"bytes": file.stat().st_size} | ({} if name.startswith(_DATA) else {"sha256": _sha256(file)})
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (name := file.relative_to(folder).as_posix()) != NAME
    }
    (folder / NAME).write_text(json.dumps(files, indent=1) + "\n")


def require_whole(folder: Path) -> None:
    """Looks at the size of every file that the arrays are read from.

    Raises:
      ConversionError: naming those that are absent or of another size. A checkpoint of an earlier release passes.
    """
    state = {name: said for name, said in _read(folder).items() if name.startswith("state/")}
    if problems := list(_wrong_sizes(folder, state)):
        raise ConversionError(f"{folder} is damaged:", problems)


def damaged_files(folder: Path) -> list[str]:
    """What is wrong with which file: its size, or its hash where it has one."""
    try:
        files = _read(folder)
    except ConversionError as error:
        return list(error.problems)
    problems = list(_wrong_sizes(folder, files))
    for name, said in files.items():
        file = folder / name
        if "sha256" in said and file.is_file() and file.stat().st_size == said["bytes"]:
            found = _sha256(file)
            if found != said["sha256"]:
                problems.append(f"{name} has sha256 {found}, it was written with {said['sha256']}")
    return problems


def _read(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """What was said of each file; nothing where an earlier release wrote the checkpoint."""
    file = folder / NAME
    if not os.path.lexists(file):
        return {}
    try:
        if not file.is_file():
            raise Refused("it is no file")
        files = parse_json(file.read_bytes())
        for name, said in files.items():
            if type(said["bytes"]) is not int or type(said.get("sha256", "")) is not str or ".." in Path(name).parts:
                raise Refused(f"{name}: {said}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConversionError(f"{folder} is damaged:", [f"{NAME} cannot be read: {error!r:.200}"]) from None
    return files


def _wrong_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, said in files.items():
        file = folder / name
        if not file.is_file():
            yield f"{name} is absent"
        elif file.stat().st_size != said["bytes"]:
            yield f"{name} has {file.stat().st_size} bytes, it was written with {said['bytes']}"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
