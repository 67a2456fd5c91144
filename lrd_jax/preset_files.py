"""Presets in files, JSON or TOML: a named decoder, the settings measured for it, and how they were measured."""

import dataclasses
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from lrd_jax.decoding.setting import check_count
from lrd_jax.tuning import Tuning

VERSION = 1
SUFFIXES = (".json", ".toml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetFile:
    """What a preset file says.

    Attributes:
      base: the named preset that has everything that `decoder` does not set.
      block_length: active window; None: that of `base`.
      decoder: the measured settings.
      measured: on what, and what was seen; for people.
      certificate: what `lrd-jax calibrate --risk` found; empty without.
    """

    base: str
    block_length: int | None = None
    decoder: Tuning
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)
    certificate: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_count(self, "block_length")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, without what is empty."""
        window = {} if self.block_length is None else {"block_length": self.block_length}
        tables = {"decoder": self.decoder.to_json(), "measured": self.measured, "certificate": self.certificate}
        found = {name: table for name, table in tables.items() if table}
        return {"lrd_jax_preset": VERSION, "base": self.base, **window, **found}


def is_preset_file(name: str) -> bool:
    """Whether the name of a preset is that of a file."""
    return Path(name).suffix in SUFFIXES


def check_preset_path(path: Path) -> None:
    """Raises ValueError where `write_preset` could not write there."""
    if not is_preset_file(str(path)):
        raise ValueError(f"{path} must end in {' or '.join(SUFFIXES)}: preset files are JSON or TOML")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.absolute().parent}; make it, or name another one")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")


def write_preset(path: Path, preset: PresetFile) -> None:
    """Writes a preset file whole or not at all, over an older one of that name."""
    check_preset_path(path)
    content = preset.to_json()
    text = _toml(content) if path.suffix == ".toml" else json.dumps(content, indent=2) + "\n"
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_preset(path: str | Path) -> PresetFile:
    """Reads a preset file.

    Raises:
      ValueError: no such file, not JSON or TOML, or fields that are missing, unknown or of another type; one message
        that names the file and all of them.
    """
    path = Path(path)
    try:
        content = (tomllib.loads if path.suffix == ".toml" else json.loads)(path.read_text())
        return _preset(content)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such preset file; `lrd-jax calibrate` writes one") from None
    except ValueError as error:  # of JSON, TOML and Unicode too
        raise ValueError(f"preset file {path}: {error}") from None


def _preset(content: Any) -> PresetFile:
    if not isinstance(content, dict) or "lrd_jax_preset" not in content:
        raise ValueError("lrd_jax_preset is missing: this is no preset file")
    content = dict(content)
    if (version := content.pop("lrd_jax_preset")) != VERSION:
        raise ValueError(f"lrd_jax_preset={version!r} is a version that is not known here; {VERSION} is")
    kinds = {"base": str, "block_length": int, "decoder": dict, "measured": dict, "certificate": dict}
    problems = [f"{name} is unknown; known: {', '.join(kinds)}" for name in content if name not in kinds]
    problems += [f"{name} is missing" for name in ("base", "decoder") if name not in content]
    problems += [
        f"{name} must be a {'table' if kind is dict else 'name' if kind is str else 'whole number'}, got {value!r}"
        for name, kind in kinds.items()
        if type(value := content.get(name, kind())) is not kind
    ]
    if is_preset_file(str(content.get("base", ""))):
        problems.append(f"base={content['base']!r} is a file; a named preset was wanted")
    if problems:
        raise ValueError("; ".join(problems))
    return PresetFile(**{**content, "decoder": Tuning.from_json(content["decoder"])})


def _toml(table: dict[str, Any], prefix: str = "") -> str:
    """A table of scalars, lists of scalars, tables, and lists of tables. JSON's scalars are TOML's too."""
    lines, below = [], []
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            below.append(f"\n[{name}]\n{_toml(value, name + '.')}")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            below += [f"\n[[{name}]]\n{_toml(item, name + '.')}" for item in value]
        else:
            lines.append(f"{key} = {json.dumps(value)}\n")
    return "".join([*lines, *below])
