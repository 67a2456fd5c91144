"""The text form: whatever a config holds can be written as JSON and TOML and reads back equal, and changes say what
they change."""

import json
import tomllib

import jax
import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from lrd_jax import (
    KLASS,
    CommitRule,
    DecodeConfig,
    DKVGreedy,
    Draw,
    DualCache,
    EntropyBound,
    FirstThen,
    LowestEntropy,
    Mix,
    PrefixCache,
    Refine,
    Scheduled,
    Stop,
    Threshold,
    setting,
)
from lrd_jax.decoding.setting import array, kinds, specs, static, text_name
from lrd_jax.decoding.text_form import all_fields, changed, difference, fields, from_table, load_parts, to_table

load_parts()
ROWS = 3


def package_kinds(base):
    """Without those of tests."""
    return {name: cls for name, cls in kinds(base).items() if cls.__module__.startswith("lrd_jax.decoding.")}


def values(spec, depth):
    """Values of a field, one of each kind of value that it takes."""
    if spec.kind == "number":
        low, high = max(spec.low, -1e6), min(spec.high, 1e6)
        if spec.whole:
            number = st.integers(int(low), int(high))
            return number | st.lists(number, min_size=ROWS, max_size=ROWS).map(np.asarray)
        real = st.floats(low, high, exclude_min=spec.open_low, width=32, allow_subnormal=False)
        rows = st.lists(real, min_size=ROWS, max_size=ROWS).map(lambda x: np.asarray(x, np.float32))
        return real | rows
    if spec.kind == "count":
        return st.integers(int(spec.low), 10**6)
    if spec.kind == "share":
        return st.floats(0, 1)
    if spec.kind == "choice":
        return st.sampled_from(spec.names)
    if spec.kind == "flag":
        return st.booleans()
    assert spec.kind == "part"
    of_the_package = list(package_kinds(spec.part).values())
    simple = [cls for cls in of_the_package if not any(s.kind == "part" for s, _ in specs(cls).values())]
    return st.sampled_from(of_the_package if depth else simple).flatmap(lambda cls: parts(cls, depth - 1))


@st.composite
def parts(draw, cls, depth=2):
    found = {}
    for name, (spec, field) in specs(cls).items():
        wanted = values(spec, depth)
        found[name] = draw(st.none() | wanted if field.default is None else wanted)
        if name == "kernel_size":
            found[name] |= 1  # it is odd
        if name == "temperature" and np.any((np.asarray(found[name]) > 0) & (np.asarray(found[name]) < 1e-6)):
            found[name] = 0.0  # less cannot be divided by
    return cls(**found)


@st.composite
def configs(draw):
    """Any config that is one: a window and planned steps that fit the canvas, no cache beside what it cannot serve."""
    found = {}
    for name, (spec, field) in specs(DecodeConfig).items():
        if name not in ("gen_length", "block_length"):
            wanted = values(spec, 2)
            found[name] = draw(st.none() | wanted if field.default is None else wanted)
    if found["cache"] is not None:
        found["cfg_scale"] = found["length"] = None
        found |= {name: None for name in ("mix", "stop") if "canvas" in getattr(found[name], "reads", ())}
    if found["commit"].idles:
        found["length"] = None
    window, blocks = draw(st.integers(1, 64)), draw(st.integers(1, 4))
    try:
        return DecodeConfig(window * blocks, block_length=draw(st.sampled_from([window, None])), **found)
    except ValueError:  # planned steps that blocks do not share, a cache that cannot serve a part, an answer behind all
        return DecodeConfig(window, **{**found, "cache": None, "stop": None})


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=150)
@given(configs())
def test_any_config_reads_back_from_json_and_toml(config):
    table = to_table(config)
    same(from_table(json.loads(json.dumps(table))), config)
    same(from_table(tomllib.loads(tomli_w.dumps(table))), config)


@settings(max_examples=50)
@given(configs(), configs())
def test_any_config_is_a_change_of_any_other(config, other):
    same(changed(other, json.loads(json.dumps(difference(config, other))), texts=False), config)


def test_a_difference_says_what_differs_and_nothing_else():
    base = DecodeConfig.lrd(64)
    config = base.replace(stop=None, mix=Mix(0.5), cache=DualCache(), commit=Threshold(), max_forwards=9)
    assert difference(config, base) == {
        "mix": {"r_f": 0.5},
        "commit": {"kind": "threshold", "threshold": 0.9},
        "stop": "none",
        "cache": {"kind": "dual"},
        "max_forwards": 9,
    }
    assert difference(base, base) == {}


CHOSEN = ("commit", "cache", "mix", "stop", "refine", "length")


@pytest.mark.parametrize(
    "name", [f"{base}:{kind}" for base in CHOSEN for kind in package_kinds(specs(DecodeConfig)[base][0].part)]
)
def test_every_kind_is_chosen_by_its_name(name):
    base, kind = name.split(":")
    spec = specs(DecodeConfig)[base][0]
    cls = kinds(spec.part)[kind]
    inner = {f"{base}.rule": "threshold"} if cls is FirstThen else {}
    inner |= {"commit": "random-order"} if cls is DKVGreedy else {}
    config = changed(DecodeConfig(8), {base: kind, **inner})
    expected = FirstThen(Threshold()) if cls is FirstThen else cls()
    assert getattr(config, base) == expected
    assert to_table(config)[base]["kind"] == kind


def test_the_form_is_as_one_would_write_it():
    config = DecodeConfig(64, commit=LowestEntropy(threshold=0.9), cache=DualCache(8), mix=Mix(np.float32([0, 0.5]), 1))
    table = to_table(config)
    assert table["commit"] == {"kind": "lowest-entropy", "per_step": 1, "threshold": 0.9}
    assert table["cache"] == {"kind": "dual", "refresh_every": 8}
    assert table["mix"] == {"kind": "mix", "r_f": [0.0, 0.5], "top_p": 1.0}
    assert table["draw"] == {"temperature": 0.0}
    assert not {"stop", "refine", "block_length", "cfg_scale"} & set(table)


def test_a_short_table_has_the_defaults():
    assert from_table({"gen_length": 8}) == DecodeConfig(8)
    assert from_table({"gen_length": 8, "cache": "dual", "stop": "none"}) == DecodeConfig(8, cache=DualCache())
    assert from_table({"gen_length": 8, "commit": {"threshold": 0.5}}).commit == LowestEntropy(threshold=0.5)


@pytest.mark.parametrize("reverse", [False, True])
def test_changes_may_stand_in_any_order(reverse):
    changes = {
        "commit": "first-then",
        "commit.rule": "threshold",
        "commit.rule.threshold": "0.25",
        "cache": "dual",
        "cache.refresh-every": "8",
        "stop": "none",
        "mix.top_p": "0.5",
        "draw.top_k": "20",
        "gen_length": "32",
        "block_length": "8",
        "end-of-text": "false",
        "max_forwards": "10",
    }
    if reverse:
        changes = dict(reversed(changes.items()))
    assert changed(DecodeConfig.lrd(64), changes) == DecodeConfig.lrd(
        32,
        block_length=8,
        commit=FirstThen(Threshold(0.25)),
        cache=DualCache(8),
        stop=None,
        mix=Mix(top_p=0.5),
        draw=Draw(top_k=20),
        end_of_text=False,
        max_forwards=10,
    )


def test_another_kind_begins_with_its_defaults_and_the_same_kind_keeps_its_numbers():
    config = DecodeConfig(8, commit=EntropyBound(0.5, "margin"))
    assert changed(config, {"commit": "entropy-bound"}) == config
    assert changed(config, {"commit": "klass"}).commit == KLASS()
    assert changed(config, {"commit": "entropy_bound", "commit.gamma": 0.2}).commit == EntropyBound(0.2, "margin")


def test_changes_may_be_parts_and_tables():
    config = changed(DecodeConfig(8), {"cache": PrefixCache(2), "cache.refresh_every": 3, "stop": Stop(0.5)})
    assert (config.cache, config.stop) == (PrefixCache(3), Stop(0.5))
    assert changed(config, {"stop": {"max_entropy": 0.1}, "stop.tau": 1}).stop == Stop(1.0, 0.1)
    assert changed(config, {"refine": {"kind": "refine", "max_steps": 3}}).refine == Refine(max_steps=3)


def test_a_number_a_row_is_a_list():
    config = changed(DecodeConfig.lrd(8), {"mix.r_f": [0.1, 0.2]})
    np.testing.assert_array_equal(config.mix.r_f, [0.1, 0.2])


def test_nothing_changed_is_the_same():
    assert changed(DecodeConfig.lrd(8), {}) == DecodeConfig.lrd(8)


@setting
class MyOwnRule(CommitRule):
    weights: np.ndarray = array()
    label: tuple = static(default=("a", 1))

    def __call__(self, sight, state):
        raise NotImplementedError


def test_a_rule_of_the_users_has_its_text_form_with_its_class():
    config = DecodeConfig(8, commit=MyOwnRule(np.float32([[1, 2], [3, 4]]), ("b", (2, 3))))
    table = json.loads(json.dumps(to_table(config)))
    assert table["commit"] == {"kind": "my-own-rule", "weights": [[1, 2], [3, 4]], "label": ["b", [2, 3]]}
    back = from_table(table)
    assert back.commit.label == ("b", (2, 3))
    np.testing.assert_array_equal(back.commit.weights, config.commit.weights)


def test_what_has_no_text_is_refused():
    with pytest.raises(ValueError, match=r"MyOwnRule\.label=<object .* has no text form"):
        to_table(DecodeConfig(8, commit=MyOwnRule(np.zeros(1), object())))


REFUSED_TABLES = {
    "not a table": ([64], r"a table of a decoder's fields was wanted, got \[64\]"),
    "missing": ({}, "^gen_length is missing$"),
    "unknown": ({"gen_length": 8, "blocks": 2}, "^blocks is unknown; known: gen_length, block_length, mix"),
    "text for a number": ({"gen_length": "8"}, "gen_length='8' must be an integer of at least 1"),
    "a flag for a number": ({"gen_length": 8, "cfg_scale": True}, r"cfg_scale=True must be a number in \[0, inf\)"),
    "a number for a flag": ({"gen_length": 8, "trace": 1}, "trace=1 must be True or False"),
    "range": ({"gen_length": 8, "commit": {"threshold": 2}}, r"commit.threshold=2 must be in \[0, 1\] or None"),
    "rows in range": ({"gen_length": 8, "commit": {"threshold": [0.1, 2]}}, r"commit.threshold=.* must be in \[0, 1\]"),
    "empty rows": ({"gen_length": 8, "cfg_scale": []}, "cfg_scale=.* must be a number in"),
    "ragged rows": ({"gen_length": 8, "cfg_scale": [[1], [1, 2]]}, "cfg_scale=.* must be a number in"),
    "a table for a number": ({"gen_length": 8, "cfg_scale": {"x": 1}}, "cfg_scale={'x': 1} must be a number"),
    "no such rule": (
        {"gen_length": 8, "commit": {"kind": "best"}},
        "commit='best' is unknown; choose one of all, capped, dream, dream-threshold, .*klass, lowest-entropy, ",
    ),
    "no kind": (
        {"gen_length": 8, "stop": {"tau": 1}},
        "stop.tau: this decoder has no stop; .* add stop=prophet or stop=stop",
    ),
    "a nested rule is missing": ({"gen_length": 8, "commit": "first-then"}, "^commit.rule is missing$"),
    "a nested number": (
        {"gen_length": 8, "commit": {"kind": "first-then", "rule": {"kind": "threshold", "threshold": -1}}},
        r"commit.rule.threshold=-1 must be in \[0, 1\]",
    ),
    "the whole": ({"gen_length": 8, "block_length": 3}, "gen_length=8 must be a multiple of block_length=3"),
    "all at once": (
        {"gen_lenght": 8, "commit": {"threshold": 2, "per_step": 0}, "mix": 1},
        "gen_length is missing; gen_lenght is unknown; .*threshold=2 .*per_step=0 .*mix=1 is unknown",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TABLES)
def test_what_is_wrong_with_a_table_is_one_error_of_dotted_names(case):
    table, message = REFUSED_TABLES[case]
    with pytest.raises(ValueError, match=message):
        from_table(table)


REFUSED_CHANGES = {
    "no such field": ({"comit.threshold": 1}, "comit is unknown; known: "),
    "another rule's field": (
        {"commit": "dream", "commit.threshold": "0.5"},
        "commit.threshold is unknown: dream has alg, steps; threshold is of commit=capped or dream-threshold or dus",
    ),
    "no such part here": (
        {"cache.refresh_every": 2},
        "this decoder has no cache; leave it out, or add cache=.*cache=dual or cache=exact or cache=prefix",
    ),
    "taken away": ({"stop": "none", "stop.tau": "1"}, "stop.tau: stop=none takes that part away"),
    "no number": ({"mix.r_f": "much"}, r"mix.r_f='much' must be a number in \[0, 1\]"),
    "not whole": ({"draw.top_k": "1.5"}, "draw.top_k='1.5' must be an integer of at least 1 or None"),
    "no flag": ({"end_of_text": "perhaps"}, "end_of_text='perhaps' must be True or False"),
    "not finite": ({"mix.r_f": "nan"}, "mix.r_f=nan must be in"),
    "none where none is no value": ({"commit": "none"}, "commit='none' is unknown; choose one of all, capped, dream, "),
    "another question's part": ({"mix": Stop()}, r"mix=Stop\(.*\) must be a MixRule or None"),
    "below a number": ({"gen_length.x": 1}, "gen_length={'x': 1} must be an integer"),
    "a plan that does not fit": ({"commit": Scheduled(3), "block_length": 4}, "steps=3 must be a multiple of the 2"),
}


@pytest.mark.parametrize("case", REFUSED_CHANGES)
def test_what_is_wrong_with_changes_is_told(case):
    changes, message = REFUSED_CHANGES[case]
    with pytest.raises(ValueError, match=message):
        changed(DecodeConfig.lrd(8), changes)


def test_texts_of_numbers_are_for_command_lines():
    with pytest.raises(ValueError, match=r"mix.r_f='0.5' must be a number"):
        changed(DecodeConfig.lrd(8), {"mix.r_f": "0.5"}, texts=False)


def test_fields_names_everything_there_is():
    names = all_fields()
    assert {"gen_length", "commit", "commit.threshold", "cache.refresh_every", "draw.top_p", "commit.rule"} <= set(
        names
    )
    assert {text_name(field.owner) for field in names["commit.steps"]} >= {"dream", "dream-threshold", "scheduled"}
    assert {field.spec.kind for field in fields("commit.rule.rule.per-step")} == {"count"}
    assert fields("commit.threshhold") == fields("gen_length.x") == []
