"""Preset files: they describe the decoder that was written, and a broken one is named with everything wrong in it."""

import dataclasses
import json

import pytest

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.region import DualCache
from lrd_jax.decoding.parts.commit.basic import LowestEntropy, Threshold
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.decoding.text_form import to_table
from lrd_jax.preset_files import PresetFile, check_preset_path, read_preset, write_preset
from lrd_jax.presets import preset

DECODER = {
    "mix": {"r_f": 0.2},
    "refine": {"tau": 0.01},
    "stop": {"tau": 0.5, "max_entropy": 0.3},
    "divergence": {"reduce": "max", "scope": "masked"},
}
VERSION_1 = {
    "lrd_jax_preset": 1,
    "base": "lrd",
    "block_length": 8,
    "decoder": {
        "r_f": 0.2,
        "tau_refine": 0.01,
        "tau_decode": 0.5,
        "max_entropy": 0.3,
        "reduce": "max",
        "scope": "masked",
    },
    "measured": {"forwards": 3.5},
}
CERTIFICATE = {"risk": 0.02, "sequence": [{"bound": 0.01, "certified": True}, {"bound": 1e-05, "certified": False}]}


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize("guard", [0.3, "none"])
def test_a_file_reads_as_it_was_written(tmp_path, suffix, guard):
    file = tmp_path / f"preset.{suffix}"
    written = PresetFile(
        base="paper/llada-1.5/gsm8k",
        decoder={"block_length": 8, **DECODER, "stop": {"max_entropy": guard}},
        measured={"model": 'a "name"\\with\nall', "prompt_hashes": ["a", "b"], "forwards": 3.25, "empty": []},
        certificate=CERTIFICATE,
    )
    write_preset(file, written)
    assert read_preset(file) == written
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


def tuned(config):
    mix, refine = dataclasses.replace(config.mix, r_f=0.2), dataclasses.replace(config.refine, tau=0.01)
    return config.replace(mix=mix, refine=refine, stop=Stop(0.5, 0.3), divergence=Divergence("max", "masked"))


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_the_name_of_a_file_is_a_preset(tmp_path, suffix):
    file = tmp_path / f"mine.{suffix}"
    write_preset(file, PresetFile(base="lrd", decoder=DECODER))
    assert preset(str(file), 32, block_length=16) == tuned(DecodeConfig.lrd(32, block_length=16))


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_file_may_hold_a_whole_decoder(tmp_path, suffix):
    config = DecodeConfig.lrd(64, block_length=16, cache=DualCache(8), max_forwards=9)
    file = tmp_path / f"whole.{suffix}"
    write_preset(file, PresetFile(decoder=to_table(config)))
    assert preset(str(file), 64) == config
    assert preset(str(file), 32) == config.replace(gen_length=32)
    assert preset(str(file), 24, block_length=8, cache="none", threshold=0.5) == config.replace(
        gen_length=24, block_length=8, cache=None, commit=LowestEntropy(threshold=0.5)
    )


def test_a_file_may_change_any_part(tmp_path):
    decoder = {"cache": "dual", "commit": {"kind": "threshold", "threshold": 0.7}, "stop": "none", "block_length": 8}
    write_preset(tmp_path / "p.toml", PresetFile(base="lrd", decoder=decoder))
    expected = DecodeConfig.lrd(32, block_length=8, cache=DualCache(), commit=Threshold(0.7), stop=None)
    assert preset(str(tmp_path / "p.toml"), 32) == expected


def test_no_guard_is_a_stop_without_one(tmp_path):
    write_preset(tmp_path / "p.toml", PresetFile(base="lrd", decoder={"stop": {"max_entropy": "none"}}))
    assert preset(str(tmp_path / "p.toml"), 32).stop.max_entropy is None


def test_the_files_window_gives_way_to_one_that_is_asked_for(tmp_path):
    write_preset(tmp_path / "p.json", PresetFile(base="lrd", decoder={"block_length": 8}))
    assert preset(str(tmp_path / "p.json"), 32).window == 8
    assert preset(str(tmp_path / "p.json"), 32, block_length=16).window == 16
    assert preset(str(tmp_path / "p.json"), 12, block_length=6).window == 6


@pytest.mark.parametrize("guard", [0.3, "none"])
def test_files_of_version_1_are_read(tmp_path, guard):
    content = {**VERSION_1, "decoder": {**VERSION_1["decoder"], "max_entropy": guard}}
    (tmp_path / "p.json").write_text(json.dumps(content))
    expected = tuned(DecodeConfig.lrd(32, block_length=8))
    expected = expected if guard == 0.3 else expected.replace(stop=Stop(0.5))
    assert preset(str(tmp_path / "p.json"), 32) == expected
    assert read_preset(tmp_path / "p.json").measured == {"forwards": 3.5}


GOOD = {"lrd_jax_preset": 2, "base": "lrd", "decoder": DECODER}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Expecting"),
        ("[1]", "lrd_jax_preset is missing: this is no preset file"),
        ({**GOOD, "lrd_jax_preset": 3}, "lrd_jax_preset=3 is a version that is not known here; 1 and 2 are"),
        ({**GOOD, "lrd_jax_preset": True}, "lrd_jax_preset=True is a version that is not known here"),
        ({"lrd_jax_preset": 2, "bass": "lrd"}, "bass is unknown; known: base, .*; decoder is missing"),
        ({**GOOD, "base": 3, "decoder": []}, r"base must be a name, got 3; decoder must be a table, got \[\]"),
        ({**GOOD, "base": "other.toml"}, "base='other.toml' is a file; a named preset was wanted"),
        ({**GOOD, "base": "lrdd"}, "preset 'lrdd' is unknown; choose one of lrd, paper"),
        (
            {**GOOD, "base": "plain"},
            "mix.r_f: this decoder has no mix; .*stop.tau, stop.max_entropy: this decoder has no",
        ),
        ({**GOOD, "decoder": {"block_length": 0}}, "block_length=0 must be an integer of at least 1"),
        ({**GOOD, "decoder": {"block_length": 24}}, "gen_length=64 must be a multiple of block_length=24"),
        ({**GOOD, "decoder": {"tau": 1}}, "tau is unknown; known: gen_length, block_length, mix"),
        ({**GOOD, "decoder": {"stop": {"max_entropy": "off"}}}, "stop.max_entropy='off' must be a number"),
        (
            {**GOOD, "decoder": {"mix": {"r_f": True}, "divergence": {"scope": 1}}},
            "r_f=True must be .*divergence.scope=1",
        ),
        ({**GOOD, "decoder": {"mix": {"r_f": "0.2"}}}, "mix.r_f='0.2' must be a number"),
        ({**GOOD, "decoder": {"mix": {"r_f": 2}}}, r"mix.r_f=2 must be in \[0, 1\]"),
        ({**GOOD, "decoder": {"divergence": {"reduce": "median"}}}, "reduce='median' must be one of mean, sum, max"),
        ({**GOOD, "decoder": {"stop": {"tau": float("nan")}}}, "tau=nan must be"),
        ({"lrd_jax_preset": 2, "decoder": {"commit": "best"}}, "commit='best' is unknown; choose one of all, capped"),
        ({**VERSION_1, "bass": 1, "base": 3}, "bass is unknown; known: base, .*; base must be a name, got 3"),
        ({"lrd_jax_preset": 1, "bass": "lrd"}, "bass is unknown; .*; base is missing; decoder is missing"),
        ({**VERSION_1, "block_length": "8"}, "block_length must be a whole number"),
        (
            {**VERSION_1, "decoder": {**VERSION_1["decoder"], "tau": 1}},
            "decoder.tau is unknown; known: r_f, tau_refine",
        ),
        ({**VERSION_1, "decoder": {"r_f": 0.1}}, "decoder.tau_refine is missing; decoder.tau_decode is missing"),
        (
            {**VERSION_1, "decoder": {**VERSION_1["decoder"], "max_entropy": "off"}},
            "max_entropy='off' must be a number",
        ),
        ({**VERSION_1, "decoder": {**VERSION_1["decoder"], "r_f": 2}}, r"mix.r_f=2 must be in \[0, 1\]"),
    ],
)
def test_a_broken_file_is_one_error_that_names_it(tmp_path, content, words):
    file = tmp_path / "broken.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=f"(?s)preset file .*broken.json: .*{words}"):
        preset(str(file), 64)


def test_broken_toml_and_an_absent_file_are_named(tmp_path):
    (tmp_path / "b.toml").write_text("base = ")
    with pytest.raises(ValueError, match=r"b\.toml: Invalid value"):
        preset(str(tmp_path / "b.toml"), 64)
    with pytest.raises(ValueError, match=r"no\.toml: there is no such preset file; `lrd-jax calibrate` writes one"):
        preset(str(tmp_path / "no.toml"), 64)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("preset.yaml", "must end in .json or .toml"),
        ("no/preset.json", "there is no folder"),
        ("d.json", "is a folder"),
    ],
)
def test_where_no_file_can_be_written_is_told(tmp_path, name, words):
    (tmp_path / "d.json").mkdir()
    with pytest.raises(ValueError, match=words):
        check_preset_path(tmp_path / name)


def test_a_write_that_fails_leaves_the_older_file(tmp_path):
    write_preset(tmp_path / "p.json", PresetFile(base="lrd", decoder=DECODER))
    before = (tmp_path / "p.json").read_bytes()
    with pytest.raises(TypeError):
        write_preset(tmp_path / "p.json", PresetFile(base="lrd", decoder=DECODER, measured={"x": object()}))
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"p.json": before}
