"""One class for errors that speak to users: a `ValueError`, which everything of ours that refuses raises."""

import ast
from pathlib import Path

import pytest

from lrd_jax import DecodeConfig
from lrd_jax.convert import ConversionError
from lrd_jax.errors import Refused
from lrd_jax.presets import preset
from lrd_jax.text import UnknownWords
from lrd_jax.toml import Problems

ROOT = Path(__file__).parent.parent
SENT_INTO_SANDBOXES = "values.py"  # where nothing of ours can be imported
FILES = [
    file
    for folder in ("lrd_jax", "models", "convert")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file.name not in ("errors.py", SENT_INTO_SANDBOXES)
]


def test_nothing_of_ours_raises_a_bare_value_error():
    """To the command line it would be a bug, with its traceback."""
    assert len(FILES) > 100
    bare = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            made = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
            if any(isinstance(name, ast.Name) and name.id == "ValueError" for name in made):
                bare.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not bare, bare


@pytest.mark.parametrize("kind", [ConversionError, Problems, UnknownWords])
def test_errors_with_more_to_tell_are_refusals(kind):
    assert issubclass(kind, Refused)


@pytest.mark.parametrize("ask", [lambda: DecodeConfig(0), lambda: preset("best", 8), lambda: preset("lrd", 8, mix="x")])
def test_a_refusal_is_a_value_error(ask):
    with pytest.raises(ValueError) as error:
        ask()
    assert type(error.value).__mro__[-5:] == (Refused, ValueError, Exception, BaseException, object)
