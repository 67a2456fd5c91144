"""Random values of random types in every field that users set: refused in our words, or it works."""

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import some_quick

import lrd_jax
from lrd_jax import DecodeConfig, toml
from lrd_jax.cli.commands import COMMANDS, parsed
from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import check_rows, kinds, specs
from lrd_jax.decoding.text_form import from_table, load_parts, to_table
from lrd_jax.errors import Refused
from lrd_jax.preset_files import read_preset
from lrd_jax.presets import preset
from lrd_jax.research.sandbox import Limits
from lrd_jax.train.config import TrainConfig

ROOT = Path(__file__).parents[2]

load_parts()
SETTINGS = [DecodeConfig, *sorted(kinds(Part).values(), key=lambda cls: cls.__name__)]

SCALARS = [
    *(st.none(), st.booleans(), st.integers(), st.integers(-2, 20), st.floats(), st.floats(0, 1), st.text(max_size=5)),
    *(st.binary(max_size=3), st.complex_numbers(max_magnitude=5), st.sampled_from([10**400, -(2**63), 1e308, "inf"])),
]
PLAIN = st.one_of(*SCALARS)
ARRAYS = st.builds(
    lambda make, values, dtype: make(np.array(values).astype(dtype)),
    st.sampled_from([np.array, jnp.array]),
    st.one_of(st.integers(-2, 9), st.lists(st.integers(-2, 9), max_size=3), st.just([[1, 0]])),
    st.sampled_from(["int8", "uint8", "int32", "float16", "float32", "bool", "complex64"]),
)
ODD = st.sampled_from([np.float32("nan"), np.array(["a"]), np.array([None]), object(), int, len, {1}, np.bool_(True)])
PARTS = st.sampled_from([cls for cls in SETTINGS if cls is not DecodeConfig]).flatmap(
    lambda cls: st.sampled_from([cls, *_made(cls)])
)
ANYTHING = st.one_of(
    PLAIN, ARRAYS, ODD, PARTS, st.lists(PLAIN, max_size=2), st.dictionaries(st.text(max_size=3), PLAIN)
)


def _made(cls):
    try:
        return [cls()]
    except (TypeError, Refused):  # it has fields without a default
        return []


def accepted(make):
    """What `make` gives; None where it is refused. Anything else that it raises is a failure of the test."""
    try:
        return make()
    except Refused as refusal:
        assert str(refusal).strip()
        return None


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda cls: cls.__name__)
def test_every_field_of_every_setting(cls):
    fields = specs(cls)
    if not fields:
        return

    @given(st.dictionaries(st.sampled_from(sorted(fields)), ANYTHING, min_size=1, max_size=2))
    def check(values):
        required = {"gen_length": 8} if cls is DecodeConfig else {}
        missing = [name for name, (_, field) in fields.items() if field.default is dataclasses.MISSING]
        if set(missing) - set(values) - set(required):
            values = {**dict.fromkeys(missing, 1), **values}
        made = accepted(functools.partial(cls, **{**required, **values}))
        if made is None:
            return
        for name, (spec, _) in fields.items():  # what is kept is what the field says
            value = getattr(made, name)
            if value is not None and spec.kind == "number":
                kept = np.asarray(value, np.float64)
                assert np.all(np.isfinite(kept) & (kept >= spec.low) & (kept <= spec.high))
            if value is not None and spec.kind == "count":
                assert type(value) is int and value >= spec.low
        accepted(lambda: check_rows(made, 2))
        table = accepted(lambda: to_table(made))
        if cls is DecodeConfig and table is not None:
            assert to_table(from_table(table)) == table

    check()


@pytest.mark.parametrize("name", ["lrd", "paper", "plain", "fast", "llada", "dream"])
def test_every_change_of_a_preset(name):
    from lrd_jax.decoding.text_form import all_fields
    from lrd_jax.presets import SHORT_NAMES

    @given(st.dictionaries(st.sampled_from([*all_fields(), *SHORT_NAMES]), ANYTHING, min_size=1, max_size=2), PLAIN)
    def check(changes, length):
        changes.pop("gen_length", None)
        made = accepted(lambda: preset(name, 8, **changes))
        assert made is None or isinstance(made, DecodeConfig)
        accepted(lambda: preset(name, length))

    check()


class Reached(Exception):
    """A decode has begun: what was asked is accepted."""


@pytest.fixture(scope="module")
def talker(models):
    return lrd_jax.load(models["byte"])


def test_every_argument_of_a_generator(talker, monkeypatch):
    def begun(*args, **kwargs):
        raise Reached

    monkeypatch.setattr(lrd_jax.Generator, "_rounds", begun)
    configs = {"calm": DecodeConfig.lrd(8), "drawing": DecodeConfig.dream(8, alg="origin")}
    arguments = ("seed", "keys", "stop", "chat", "canvases")
    prompts = st.one_of(ANYTHING, st.just(["hi"]), st.lists(ANYTHING, max_size=2))

    @settings(max_examples=500)
    @given(st.sampled_from(sorted(configs)), prompts, st.dictionaries(st.sampled_from(arguments), ANYTHING, max_size=2))
    def check(config, prompts, asked):
        generator = lrd_jax.Generator(talker, configs[config])
        try:
            accepted(lambda: generator.generate(prompts, **asked))
            accepted(lambda: list(generator.stream(prompts, **asked)))
        except Reached:
            return

    check()


@settings(max_examples=60)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_every_argument_of_the_constructors_around_a_decode(loaded, config, batch):
    assert accepted(lambda: lrd_jax.Generator(loaded, config)) is None
    accepted(lambda: lrd_jax.make_decode(loaded, config))
    accepted(lambda: lrd_jax.make_mesh(loaded, config, batch))
    accepted(lambda: lrd_jax.make_mesh(devices=batch))


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(Limits)]), ANYTHING, max_size=2))
def test_every_limit_of_a_sandbox(values):
    made = accepted(lambda: Limits(**values))
    assert made is None or all(value > 0 for value in dataclasses.asdict(made).values())


# Values of TOML.

TOML_VALUES = st.recursive(
    st.one_of(
        *(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.integers(-2, 20), st.floats(), st.floats(0, 1)),
        *(st.text("ab\0 \u2028", max_size=4), st.dates(), st.sampled_from(["lrd-tiny", "words", "block", "none"])),
    ),
    lambda below: (
        st.lists(below, max_size=2) | st.dictionaries(st.text("abk", min_size=1, max_size=4), below, max_size=2)
    ),
    max_leaves=4,
)


def places(table: Any, at: tuple = ()):
    """The path of every value in nested tables and lists."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for name, value in items:
        yield (*at, name)
        yield from places(value, (*at, name))


def put(table: Any, at: tuple, value: Any) -> Any:
    """A copy with another value at a path."""
    if not at:
        return value
    copy = dict(table) if isinstance(table, dict) else list(table)
    copy[at[0]] = put(copy[at[0]], at[1:], value)
    return copy


EVERY_TABLE = """
[soft_inputs]
share = 0.5
refinements = 2
every_depth = false
min_r_f = 0.0
max_r_f = 1.0
top_p = 0.9
all_masked = 0.0
through = false
remat = true
[mesh]
data = 1
fsdp = 1
tensor = 1
"""


def test_every_field_of_a_recipe():
    recipe = tomllib.loads((ROOT / "recipes" / "lrd-tiny.toml").read_text(encoding="utf-8"))
    whole = {**tomllib.loads(EVERY_TABLE), **recipe}
    whole["optimizer"] = {"weight_decay": 0.1, "b2": 0.98, "clip_norm": 1.0, "restarts": [], **whole["optimizer"]}
    assert accepted(lambda: toml.read(TrainConfig, tomli_w.dumps(whole))) is not None

    @settings(max_examples=400)
    @given(st.sampled_from(list(places(whole))), TOML_VALUES)
    def check(at, value):
        made = accepted(lambda: toml.read(TrainConfig, tomli_w.dumps(put(whole, at, value))))
        assert made is None or isinstance(made, TrainConfig)

    check()


def test_every_field_of_a_preset_file(tmp_path):
    whole = {"lrd_jax_preset": 2, "base": "lrd", "decoder": to_table(DecodeConfig.lrd(8)), "measured": {"prompts": 5}}
    del whole["decoder"]["gen_length"]
    file = tmp_path / "p.toml"

    @settings(max_examples=300)
    @given(st.sampled_from(list(places(whole))), TOML_VALUES)
    def check(at, value):
        toml.write(file, put(whole, at, value))
        accepted(lambda: read_preset(file))
        made = accepted(lambda: preset(str(file), 8))
        assert made is None or made.gen_length == 8

    check()


# Words of command lines, and the options that they become.

WORDS = st.one_of(
    st.text(max_size=6).filter(lambda text: "\0" not in text),
    st.sampled_from(["", "-1", "0", "nan", "inf", "1e3", "true", "none", "-", "--", "½", "9" * 30, "lrd", "1,2"]),
)


@pytest.mark.slow
@pytest.mark.parametrize("command", some_quick(COMMANDS, 3))
def test_every_option_of_every_command(command, capsys):
    """What the parser and the options' own checks make of any word: options, or an exit with status 2."""
    options = [
        field.name.replace("_", "-") for field in dataclasses.fields(COMMANDS[command]) if field.name != "changes"
    ]

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.sampled_from(options), WORDS), min_size=1, max_size=2))
    def check(pairs):
        args = [word for name, value in pairs for word in (f"--{name}", value)]
        try:
            accepted(lambda: parsed([command, *args]))
        except SystemExit as end:
            assert end.code in (0, 2)

    check()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_of_the_options(command):
    cls = COMMANDS[command]
    names = [field.name for field in dataclasses.fields(cls)]
    paths = dict.fromkeys(("data", "output", "dest", "checkpoint", "config", "input", "out"), Path("no"))
    given_always = {"model": "no", "source": "no", **paths}

    @given(st.dictionaries(st.sampled_from(names), ANYTHING, min_size=1, max_size=2))
    def check(values):
        made = accepted(lambda: cls(**{**{k: v for k, v in given_always.items() if k in required}, **values}))
        assert made is None or isinstance(made, cls)

    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    check()
