"""Dataclasses from TOML, typed and with every problem named by its field, and tables back to TOML."""

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, cast

import tomli_w

from lrd_jax.durable import write_whole
from lrd_jax.errors import Refused
from lrd_jax.files import require_file

T = TypeVar("T")


class Problems(Refused):
    """Everything that is wrong with a config; each of `found` begins with the field that it is about."""

    def __init__(self, found: list[str]):
        super().__init__("; ".join(found))
        self.found = found


def read(cls: type[T], path_or_text: Path | str) -> T:
    """A dataclass from a TOML file (a `Path`) or from TOML itself (a `str`).

    Fields may be str, bool, int, float (a whole number passes), `Any`, dict, other dataclasses (tables), tuples of any
    of these (lists), and one of them or None. What the classes themselves refuse, by `Problems`, gets its field's full
    name too.

    Raises:
      ValueError: no file, not UTF-8, not TOML, or unknown, missing or wrong fields, all in one message that names the
        file.
      OSError: the file cannot be read.
    """
    if isinstance(path_or_text, str):
        return build(cls, _parsed(path_or_text))
    require_file(path_or_text, "a TOML file was wanted")
    try:
        return build(cls, _parsed(_decoded(path_or_text.read_bytes())))
    except ValueError as error:
        raise Refused(f"{path_or_text}: {error}") from None


def build(cls: type[T], table: Any) -> T:
    """A dataclass from a parsed table, as `read` makes it.

    Raises:
      Problems: see `read`.
    """
    return _build(cls, table, "")


def dumps(table: dict[str, Any]) -> str:
    """TOML of a table of scalars, lists and tables; TOML has no null, so None must have been left out.

    Raises:
      TypeError: a value that TOML cannot hold.
    """
    return tomli_w.dumps(table)


def write(path: Path, table: dict[str, Any]) -> None:
    """Writes a table whole or not at all, over an older file of that name."""
    write_whole(path, dumps(table))


def type_problems(config: Any) -> list[str]:
    """Fields of a dataclass that do not hold what their annotations say; for `__post_init__`."""
    kinds = typing.get_type_hints(type(config))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return [_mismatch(name, kinds[name], value) for name, value in values.items() if not _fits(kinds[name], value)]


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8: byte {content[error.start]:#04x} at offset {error.start}") from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise Refused("lists or tables are nested too deeply") from None


def _build(cls: type[T], table: Any, where: str) -> T:
    if not isinstance(table, dict):
        raise Problems([f"{where or 'the file'} must be a table, got {table!r:.80}"])
    kinds = typing.get_type_hints(cls)
    fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    prefix = f"{where}." if where else ""
    problems = [f"{prefix}{name} is unknown; known: {', '.join(fields)}" for name in table if name not in fields]
    problems += [f"{prefix}{name} is missing" for name, f in fields.items() if _is_required(f) and name not in table]
    values = {}
    for name in (name for name in table if name in fields):
        try:
            values[name] = _value(kinds[name], table[name], prefix + name)
        except Problems as error:
            problems += error.found
    if problems:
        raise Problems(problems)
    try:
        return cls(**values)
    except Problems as error:
        raise Problems([prefix + problem for problem in error.found]) from None


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None:  # never in TOML, but in tables that come from JSON
            return None
        kind = next(option for option in typing.get_args(kind) if option is not types.NoneType)
    if dataclasses.is_dataclass(kind):
        return _build(cast(type, kind), value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise Problems([f"{where} must be a list, got {value!r:.80}"])
        return tuple(_value(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if not _fits(kind, value):
        raise Problems([_mismatch(where, kind, value)])
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(option, value) for option in typing.get_args(kind))
    origin = typing.get_origin(kind) or kind
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(typing.get_args(kind)[0], item) for item in value)
    if origin is float and type(value) is int:
        return abs(value) < 2**1000  # float() takes no larger ones
    if origin is Any:
        return True
    return isinstance(value, origin) if dataclasses.is_dataclass(origin) or origin is dict else type(value) is origin


def _mismatch(where: str, kind: Any, value: Any) -> str:
    return f"{where} must be of type {getattr(kind, '__name__', kind)}, got {value!r:.80}"
