"""Typed reading of TOML with problems by field, and tables that survive being written."""

import dataclasses
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrd_jax import toml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    size: int
    rate: float = 0.5

    def __post_init__(self):
        if self.size < 1:
            raise toml.Problems([f"size={self.size} must be positive"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Root:
    name: str
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


def test_text_and_files_read_as_dataclasses(tmp_path):
    text = 'name = "a"\n[leaf]\nsize = 2\nrate = 1\n[[leaves]]\nsize = 3\n[notes]\nany = [1, "b", {c = nan}]\n'
    (tmp_path / "a.toml").write_text(text)
    got = toml.read(Root, tmp_path / "a.toml")
    assert got.leaf == Leaf(size=2, rate=1.0) and type(got.leaf.rate) is float
    assert got.leaves == (Leaf(size=3),) and got.notes["any"][:2] == [1, "b"]
    assert toml.read(Root, text).leaves == got.leaves


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["name is missing"]),
        ("name = 1", ["name must be of type str, got 1"]),
        ('name = "a"\nleaf = 3', ["leaf must be a table, got 3"]),
        ('name = "a"\nleaves = 3', ["leaves must be a list, got 3"]),
        ('name = "a"\n[leaf]\nsize = true', ["leaf.size must be of type int, got True"]),
        ('name = "a"\n[leaf]\nsize = 1.0', ["leaf.size must be of type int, got 1.0"]),
        (f'name = "a"\n[leaf]\nsize = 1\nrate = 1{"0" * 400}', ["leaf.rate must be of type float, got 1000"]),
        ('name = "a"\n[[leaves]]\nsize = 1\n[[leaves]]\nsize = 0', ["leaves[1].size=0 must be positive"]),
        (
            "nam = 1\n[leaf]\nsize = 0\n[[leaves]]\n",
            ["nam is unknown; known: name, leaf, leaves, notes", "name is missing", "leaf.size=0", "leaves[0].size is"],
        ),
    ],
)
def test_problems_are_named_by_field_and_reported_together(text, problems):
    with pytest.raises(toml.Problems) as raised:
        toml.read(Root, text)
    assert len(raised.value.found) == len(problems)
    for problem, found in zip(problems, raised.value.found, strict=True):
        assert found.startswith(problem)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'name = "\xff"', "not UTF-8: byte 0xff at offset 8"),
        (b"name = ", "Invalid value"),
        (b"name = " + b"[" * 100_000, "nested too deeply"),
        (b"other = 1", "other is unknown"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.toml: .*{message}"):
        toml.read(Root, tmp_path / "a.toml")


def test_fields_given_in_code_are_checked_by_the_same_types():
    good = Root(name="a", leaf=Leaf(size=1), leaves=(Leaf(size=1, rate=1),))
    assert toml.type_problems(good) == []
    bad = Root(name=None, leaf={}, leaves=[])
    assert [problem.split()[0] for problem in toml.type_problems(bad)] == ["name", "leaf", "leaves"]


scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@given(st.dictionaries(st.text(), values))
def test_tables_survive_being_written(table):
    assert same(tomllib.loads(toml.dumps(table)), table)


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.toml"
    toml.write(file, {"name": "é\u2028"})
    with pytest.raises(TypeError):
        toml.write(file, {"name": None})
    assert toml.read(Root, file).name == "é\u2028" and list(tmp_path.iterdir()) == [file]
