"""A decoder's fields on the command line: `--commit.threshold 0.8 --cache dual --no-end-of-text`, and their help.

The fields are those of the text form, so that they are nowhere written down a second time. Reading them takes JAX: it
is imported where an argument is none of the command's own options, or where help is asked for.
"""

import inspect
import math
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lrd_jax.errors import Refused

if TYPE_CHECKING:
    from lrd_jax.decoding.text_form import Field

_METAVARS = {"number": "NUMBER", "count": "INT", "choice": "NAME", "part": "KIND"}  # flags take nothing


def split(args: Sequence[str], own: Collection[str], *, decodes: bool = True) -> tuple[list[str], dict[str, str]]:
    """The arguments that are the command's own, and the changes of the decoder by dotted or short name.

    Args:
      own: names of the command's options, with underscores.
      decodes: whether the command has a decoder; one without takes its own options alone.

    Raises:
      ValueError: an option that nobody knows, or one without its value.
    """
    kept, changes, rest = [], {}, list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*kept, word, *rest], changes
        option, is_joined, value = word[2:].partition("=")
        name = option.replace("-", "_")
        if not word.startswith("--") or not option or {name, name.removeprefix("no_")} & {*own, "help"}:
            kept.append(word)
            continue
        if not decodes:
            raise _unknown(name, own)
        changed, negated = _meant(name, own)
        if changed is None:
            changes[name] = value if is_joined else _next(rest, option)
        elif is_joined and negated:
            raise Refused(f"--{option} takes no value; --{changed.replace('_', '-')}={value} takes one")
        elif is_joined:
            changes[changed] = value
        else:
            changes[changed] = "false" if negated else "true"
    return kept, changes


def _meant(name: str, own: Collection[str]) -> tuple[str | None, bool]:
    """The flag that an option is, and whether it denies it; (None, False) for an option that takes a value."""
    from lrd_jax.decoding.text_form import all_fields, fields
    from lrd_jax.presets import SHORT_NAMES

    for flag, negated in ((name, False), (name.removeprefix("no_"), True)):
        found = fields(flag)
        if found and all(field.spec.kind == "flag" for field in found):
            return flag, negated
    if name in SHORT_NAMES or fields(name):
        return None, False
    raise _unknown(name, [*own, *SHORT_NAMES, *all_fields()])


def _unknown(name: str, known: Collection[str]) -> ValueError:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean --{near[0].replace('_', '-')}?" if near else "--help lists what there is"
    return Refused(f"--{name.replace('_', '-')} is unknown; {hint}")


def _next(rest: list[str], option: str) -> str:
    if not rest or rest[0].startswith("--"):
        raise Refused(f"--{option} wants a value; --help says which")
    return rest.pop(0)


def print_help() -> None:
    """Every field of a decoder, below a command's own options."""
    console = Console(highlight=False)
    console.print(panel(console.width))


def panel(width: int) -> RenderableType:
    """Every field of a decoder, a section for each part."""
    from lrd_jax.decoding.setting import kinds
    from lrd_jax.decoding.text_form import all_fields

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(max_width=max(28, width // 3))
    table.add_column()
    section = ""
    for name, found in all_fields().items():
        spec = found[0].spec
        is_only_kind = spec.part is not None and not found[0].optional and len(kinds(spec.part)) == 1
        if name == "gen_length" or spec.kind in ("array", "static") or is_only_kind:
            continue
        head, dot, _ = name.partition(".")
        begun, section = section, head if dot or spec.kind == "part" else ""
        if section != begun:
            table.add_row()
        table.add_row(_options(name, found), _words(found))
    note = Text(
        "Each stands in for what the preset says, in any order. "
        "A kind of part that the preset does not have begins with its defaults.\n"
    )
    return Panel(Group(note, table), title="decoder", title_align="left", box=box.ROUNDED, border_style="dim")


def _options(name: str, found: "list[Field]") -> Text:
    from lrd_jax.presets import SHORT_NAMES

    long, kind = name.replace("_", "-"), found[0].spec.kind
    names = [f"--{long}"]
    names += [f"--{short.replace('_', '-')}" for short, known in SHORT_NAMES.items() if name in known.fields]
    names += [f"--no-{long}"] if kind == "flag" else []
    return Text.assemble((", ".join(names), "bold"), f" {_METAVARS[kind]}" if kind in _METAVARS else "")


def _words(found: "list[Field]") -> Text:
    """What a field is, and in parentheses what it takes and which kinds of part have it."""
    from lrd_jax.decoding.setting import kinds, text_name
    from lrd_jax.decoding.text_form import NONE

    said = _described(found)
    spec, takes = found[0].spec, ""
    if spec.kind == "number":
        low, high = f"{'above' if spec.open_low else 'at least'} {spec.low:g}", f"{spec.high:g}"
        takes = (
            low
            if spec.high == math.inf or spec.whole
            else f"{low}, at most {high}"
            if spec.open_low
            else f"{spec.low:g} to {high}"
        )
    elif spec.kind == "count":
        takes = f"at least {spec.low:g}"
    elif spec.kind == "choice":
        names = list(dict.fromkeys(choice for field in found for choice in field.spec.names))
        takes = "" if all(name in said for name in names) else ", ".join(names)
    elif spec.part is not None:
        takes = ", ".join(sorted(kinds(spec.part)))
    if takes and any(field.optional for field in found):
        takes += f" or {NONE}"
    owners = [text_name(field.owner) for field in found]
    of = f"of {', '.join(owners)}" if "." in found[0].name and len(kinds(_base(found[0].owner))) > 1 else ""
    facts = "; ".join(filter(None, [takes, of]))
    return Text.assemble(f"{said}. " if said else "", (f"({facts})", "cyan") if facts else "")


def _base(owner: type) -> type:
    """The class of the parts that answer the same question."""
    from lrd_jax.decoding.parts.part import Part

    return next(cls for cls in reversed(owner.__mro__) if issubclass(cls, Part) and cls is not Part)


def _described(found: "list[Field]") -> str:
    """The words for a field in its owner's docstring: the default kind's before another's."""
    from docstring_parser import parse

    from lrd_jax.decoding.config import DecodeConfig
    from lrd_jax.decoding.setting import specs

    usual = [type(field.default) for _, field in specs(DecodeConfig).values()]
    for field in sorted(found, key=lambda field: field.owner not in usual):
        last = field.name.rpartition(".")[2]
        for cls in field.owner.__mro__:
            for param in parse(inspect.cleandoc(cls.__doc__ or "")).params:
                if param.description and last in param.arg_name.split(", "):
                    return " ".join(param.description.split()).rstrip(".").replace("None:", "none:")
    return ""
