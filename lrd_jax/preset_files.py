"""Presets in files, JSON or TOML: a named decoder, the settings measured for it, and how they were measured."""

import dataclasses
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from lrd_jax import toml
from lrd_jax.convert.safetensors_io import parse_json
from lrd_jax.durable import check_writable, followed, write_whole
from lrd_jax.errors import Refused
from lrd_jax.files import require_file

VERSION = 2
SUFFIXES = (".json", ".toml")


# What version 1, which had six settings and no others, called the fields of a decoder.
_VERSION_1 = {
    "r_f": ("mix", "r_f"),
    "tau_refine": ("refine", "tau"),
    "tau_decode": ("stop", "tau"),
    "max_entropy": ("stop", "max_entropy"),
    "reduce": ("divergence", "reduce"),
    "scope": ("divergence", "scope"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetFile:
    """What a preset file says.

    Attributes:
      base: the named preset that has everything that `decoder` does not set; None: `decoder` is the whole.
      decoder: what is changed in `base`, or a whole decoder, in the text form, see `lrd_jax.decoding.text_form`.
      measured: on what, and what was seen; for people.
      certificate: what `lrd-jax calibrate --risk` found; empty without.
    """

    base: str | None = None
    decoder: dict[str, Any]
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)
    certificate: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, without what is empty."""
        base = {} if self.base is None else {"base": self.base}
        tables = {"decoder": self.decoder, "measured": self.measured, "certificate": self.certificate}
        return {"lrd_jax_preset": VERSION, **base, **{name: table for name, table in tables.items() if table}}


def is_preset_file(name: str) -> bool:
    """Whether the name of a preset is that of a file."""
    return Path(name).suffix in SUFFIXES


def check_preset_path(path: Path) -> None:
    """Raises ValueError, or OSError of the system's, where `write_preset` could not write there."""
    if not is_preset_file(str(path)):
        raise Refused(f"{path} must end in {' or '.join(SUFFIXES)}: preset files are JSON or TOML")
    if not path.absolute().parent.is_dir():
        raise Refused(f"{path}: there is no folder {path.absolute().parent}; make it, or name another one")
    require_file(path, "name a file")
    check_writable(followed(path).parent, str(path))


def write_preset(path: Path, preset: PresetFile) -> None:
    """Writes a preset file whole or not at all, over an older one of that name."""
    check_preset_path(path)
    content = preset.to_json()
    write_whole(path, toml.dumps(content) if path.suffix == ".toml" else json.dumps(content, indent=2) + "\n")


def read_preset(path: str | Path) -> PresetFile:
    """Reads a preset file.

    Raises:
      ValueError: no such file, not JSON or TOML, or fields that are missing, unknown, twice there or of another type;
        one message that names the file and all of them.
    """
    if not isinstance(path, str | os.PathLike):
        raise Refused(f"path={path!r:.80} is no path; give that of a preset file")
    path = Path(path)
    require_file(path, "a preset file was wanted")
    try:
        text = path.read_text("utf-8-sig")
        return _preset(tomllib.loads(text) if path.suffix == ".toml" else parse_json(text.encode()))
    except FileNotFoundError:
        raise Refused(f"{path}: there is no such preset file; `lrd-jax calibrate` writes one") from None
    except (ValueError, RecursionError) as error:  # of JSON, TOML and Unicode too
        raise Refused(f"preset file {path}: {error}") from None


def _preset(content: Any) -> PresetFile:
    if not isinstance(content, dict) or "lrd_jax_preset" not in content:
        raise Refused("lrd_jax_preset is missing: this is no preset file")
    content = dict(content)
    version = content.pop("lrd_jax_preset")
    if version not in (1, VERSION) or isinstance(version, bool):
        raise Refused(f"lrd_jax_preset={version!r} is a version that is not known here; 1 and {VERSION} are")
    kinds = {"base": str, "decoder": dict, "measured": dict, "certificate": dict}
    required = ["decoder"]
    if version == 1:
        kinds, required = {**kinds, "block_length": int}, ["base", "decoder"]
    problems = [f"{name} is unknown; known: {', '.join(kinds)}" for name in content if name not in kinds]
    problems += [f"{name} is missing" for name in required if name not in content]
    problems += [
        f"{name} must be a {'table' if kind is dict else 'name' if kind is str else 'whole number'}, got {value!r}"
        for name, kind in kinds.items()
        if type(value := content.get(name, kind())) is not kind
    ]
    if is_preset_file(str(content.get("base", ""))):
        problems.append(f"base={content['base']!r} is a file; a named preset was wanted")
    if version == 1 and isinstance(content.get("decoder"), dict):
        names = content["decoder"]
        problems += [f"decoder.{n} is unknown; known: {', '.join(_VERSION_1)}" for n in names if n not in _VERSION_1]
        problems += [f"decoder.{name} is missing" for name in _VERSION_1 if name not in names]
    if problems:
        raise Refused("; ".join(problems))
    return PresetFile(**(_of_version_1(content) if version == 1 else content))


def _of_version_1(content: dict[str, Any]) -> dict[str, Any]:
    decoder: dict[str, Any] = {}
    if "block_length" in content:
        decoder["block_length"] = content.pop("block_length")
    for name, (part, field) in _VERSION_1.items():
        decoder.setdefault(part, {})[field] = content["decoder"][name]
    return {**content, "decoder": decoder}
