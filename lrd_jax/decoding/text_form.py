"""A decoder as text: tables of JSON and TOML, and single changes by dotted name; all of it, both ways.

    gen_length = 64

    [commit]
    kind = "lowest-entropy"
    threshold = 0.9

Everything is read off the fields of the settings, see `lrd_jax.decoding.setting`: a part that joins, a notebook's too,
has its text form with its class. The name of a kind is that of `text_name`. Numbers one a row are lists. What is None
is left out of a table, and may be written "none". "kind" alone is written as a name: `cache = "dual"`.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from lrd_jax.decoding import parts
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.setting import Spec, checked, kinds, specs, text_name
from lrd_jax.errors import Refused

KIND, NONE = "kind", "none"
_FLAGS = {"true": True, "false": False}


class _Problems(Refused):
    """Everything that is wrong, a sentence each."""

    def __init__(self, found: list[str]):
        super().__init__("; ".join(found))
        self.found = found


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a decoder, or of a kind of its parts.

    Attributes:
      name: dotted, as "commit.threshold".
      spec: what it takes.
      optional: whether None is a value.
      default: `dataclasses.MISSING` where it must be given.
      owner: the setting whose field it is.
    """

    name: str
    spec: Spec
    optional: bool
    default: Any
    owner: type


def to_table(config: Any) -> dict[str, Any]:
    """A JSON-ready table of a decoder, or of any setting: every field that is not None.

    Raises:
      ValueError: a value that no text stands for: of a field that is `static`, or traced.
    """
    if config is None:
        return {}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise Refused(f"a decoder or a part of one was wanted, got {config!r:.80}")
    return dict(_entries(config))


def from_table(table: Any) -> DecodeConfig:
    """The inverse of `to_table`; fields that the table lacks have their defaults. Arrays come as NumPy's.

    Raises:
      ValueError: unknown, missing or wrong fields and unknown kinds, by their dotted names, all in one message.
    """
    return _changed(None, DecodeConfig, _tree(table), texts=False)


def changed(config: DecodeConfig, changes: Mapping[str, Any], *, texts: bool = True) -> DecodeConfig:
    """A decoder with some fields changed, in whatever order they stand.

        changed(config, {"commit.threshold": "0.8", "cache": "dual", "cache.refresh_every": 8, "stop": "none"})

    Args:
      changes: by dotted name, - and _ alike. The value of a part is a kind of it, which begins with its defaults unless
        it is the kind that is there; or a part; or a table of changes, in which "kind" names it.
      texts: a text may stand for a number or a flag, as on a command line.

    Raises:
      ValueError: unknown fields and kinds, values that are not what a field takes, fields of parts that are not there,
        all in one message; or what the decoder as a whole refuses.
    """
    if not isinstance(config, DecodeConfig):
        raise Refused(f"config must be a DecodeConfig, got {config!r:.80}")
    return _changed(config, DecodeConfig, _tree(changes), texts=texts)


def difference(config: Any, base: Any) -> dict[str, Any]:
    """The table of changes that makes `config` of `base`: `changed(base, difference(config, base))` equals it.

    Raises:
      ValueError: see `to_table`.
    """
    if type(config) is not type(base):
        return {**({} if isinstance(config, DecodeConfig) else {KIND: text_name(type(config))}), **to_table(config)}
    table, there, found = to_table(config), to_table(base), {}
    for name, (spec, _) in specs(type(config)).items():
        if name not in table and name in there:
            found[name] = NONE
        elif table.get(name) != there.get(name):
            is_part = spec.kind == "part"
            found[name] = difference(getattr(config, name), getattr(base, name)) if is_part else table[name]
    return found


def fields(name: str, base: type = DecodeConfig) -> list[Field]:
    """The fields that a dotted name can mean: one for each kind of part that has it; empty where none has."""
    load_parts()
    name = name.replace("-", "_")
    head, dot, rest = name.partition(".")
    found = []
    for owner in _kinds(base).values():
        if head not in (known := specs(owner)):
            continue
        spec, field = known[head]
        if not dot:
            found.append(Field(name, spec, field.default is None, field.default, owner))
        elif spec.part is not None:
            found += [dataclasses.replace(f, name=name) for f in fields(rest, spec.part)]
    return found


def all_fields() -> dict[str, list[Field]]:
    """`fields` of every dotted name there is, but for those of rules within rules."""
    load_parts()
    return {name: fields(name) for name in _names(DecodeConfig, "", ())}


@functools.cache
def load_parts() -> None:
    """Imports every part of the package, so that its kinds are known."""
    for module in pkgutil.walk_packages(parts.__path__, f"{parts.__name__}."):
        importlib.import_module(module.name)


def _kinds(base: type) -> dict[str, type]:
    """In one order, whatever was imported first: the package's own, then those of users."""
    found = kinds(base).items()
    return dict(sorted(found, key=lambda kind: (not kind[1].__module__.startswith("lrd_jax."), kind[0])))


def _names(base: type, prefix: str, above: tuple[type, ...]) -> Iterator[str]:
    seen = set()
    for owner in _kinds(base).values():
        for name, (spec, _) in specs(owner).items():
            if name not in seen:
                seen.add(name)
                yield prefix + name
                if spec.part is not None and spec.part not in above:
                    yield from _names(spec.part, f"{prefix}{name}.", (*above, spec.part))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    for name, (spec, field) in specs(type(value)).items():
        given = getattr(value, name)
        if given is None:
            continue
        if spec.kind == "part":
            implied = type(given) is spec.part and type(field.default) is spec.part
            yield name, {**({} if implied else {KIND: text_name(type(given))}), **to_table(given)}
        else:
            yield name, _plain(f"{type(value).__name__}.{name}", given)


def _plain(label: str, value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, np.ndarray | np.generic | jax.Array) and not isinstance(value, Tracer):
        return np.asarray(value).tolist()
    if isinstance(value, tuple):
        return [_plain(label, item) for item in value]
    if not isinstance(value, bool | int | float | str):
        raise Refused(f"{label}={value!r:.80} has no text form: a number, a text, an array or a tuple was wanted")
    return value


def _tree(changes: Any) -> dict[str, Any]:
    """Changes as nested tables: dotted names become tables, and a part's own value stands under "kind"."""
    if not isinstance(changes, Mapping):
        raise Refused(f"a table of a decoder's fields was wanted, got {changes!r:.80}")
    tree: dict[str, Any] = {}
    for name, value in changes.items():
        head, *rest = str(name).replace("-", "_").split(".")
        value = _tree(value) if isinstance(value, Mapping) else value
        for part in reversed(rest):
            value = {part: value}
        tree[head] = _merged(tree[head], value) if head in tree else value
    return tree


def _merged(one: Any, other: Any) -> Any:
    """Two values of one name, of which at least one is a table; the later counts where both say something."""
    if not isinstance(one, dict) and not isinstance(other, dict):
        return other
    one, other = (x if isinstance(x, dict) else {KIND: x} for x in (one, other))
    return {**one, **{name: _merged(one[name], value) if name in one else value for name, value in other.items()}}


def _changed(current: Any, cls: type, tree: dict[str, Any], where: str = "", *, texts: bool) -> Any:
    """A `cls` with the fields of `current`, or their defaults, and those of the tree in their place."""
    load_parts()
    known, prefix = specs(cls), f"{where}." if where else ""
    values, problems = {}, []
    for name, (_, field) in known.items():
        if current is not None:
            values[name] = getattr(current, name)
        elif field.default is not dataclasses.MISSING:
            values[name] = field.default
        elif name not in tree:
            problems.append(f"{prefix}{name} is missing")
    for name, given in tree.items():
        label = f"{prefix}{name}"
        if name not in known:
            problems.append(_unknown(label, cls))
            continue
        spec, field = known[name]
        optional = field.default is None
        try:
            if spec.kind == "part":
                values[name] = _part(values.get(name), given, spec, label, optional=optional, texts=texts)
            else:
                values[name] = checked(
                    label, _read(given, spec, optional=optional, texts=texts), spec, optional=optional
                )
        except _Problems as error:
            problems += error.found
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise _Problems(problems)
    try:
        return cls(**values)
    except ValueError as error:
        raise _Problems([f"{where}: {error}" if where else str(error)]) from None


def _part(now: Any, given: Any, spec: Spec, label: str, *, optional: bool, texts: bool) -> Any:
    """A part: of the kind that is asked for, else that which is there."""
    tree, names = dict(given) if isinstance(given, dict) else {KIND: given}, _kinds(spec.part or object)
    below = ", ".join(f"{label}.{name}" for name in tree if name != KIND)
    if KIND not in tree:
        if now is None:
            ways = " or ".join(f"{label}={name}" for name in names)
            raise Refused(f"{below}: this decoder has no {label}; leave it out, or add {ways}")
        return _changed(now, type(now), tree, label, texts=texts)
    kind = tree.pop(KIND)
    if optional and (kind is None or (isinstance(kind, str) and kind == NONE)):
        if below:
            raise Refused(f"{below}: {label}={NONE} takes that part away; leave one of them out")
        return None
    if dataclasses.is_dataclass(kind):
        now = checked(label, kind, spec, optional=optional)
        return _changed(now, type(now), tree, label, texts=texts)
    cls = names.get(kind.replace("_", "-").lower()) if isinstance(kind, str) else None
    if cls is None:
        raise Refused(
            f"{label}={kind!r} is unknown; choose one of {', '.join(names)}{f' or {NONE}' if optional else ''}"
        )
    return _changed(now if type(now) is cls else None, cls, tree, label, texts=texts)


def _read(given: Any, spec: Spec, *, optional: bool, texts: bool) -> Any:
    """The value that a text or a list stands for; itself where it stands for none, which the checks then refuse."""
    if optional and isinstance(given, str) and given == NONE:
        return None
    if isinstance(given, str):
        return _parsed(given, spec) if texts else given
    return _from_list(given, spec) if isinstance(given, list) else given


def _parsed(text: str, spec: Spec) -> Any:
    try:
        if spec.kind in ("number", "share", "count"):
            return int(text) if spec.kind == "count" else float(text)
    except ValueError:
        return text
    return _FLAGS.get(text.lower(), text) if spec.kind == "flag" else text


def _from_list(given: list, spec: Spec) -> Any:
    if spec.kind == "static":
        return tuple(_from_list(item, spec) if isinstance(item, list) else item for item in given)
    try:
        array = np.asarray(given)
    except ValueError:  # ragged
        return given
    return array if spec.kind in ("number", "array") and array.dtype.kind in "fiub" else given


def _unknown(name: str, cls: type) -> str:
    """That a setting has no such field, what it has, and which other kinds have it."""
    where, _, last = name.rpartition(".")
    known = ", ".join(specs(cls)) or "nothing"
    if not where:
        return f"{name} is unknown; known: {known}"
    others = [text_name(field.owner) for field in fields(name)]
    hint = f"; {last} is of {where}={' or '.join(others)}" if others else ""
    return f"{name} is unknown: {text_name(cls)} has {known}{hint}"
