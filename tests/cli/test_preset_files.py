"""Preset files: they describe the decoder that was written, and a broken one is named with everything wrong in it."""

import json

import pytest

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.preset_files import PresetFile, check_preset_path, read_preset, write_preset
from lrd_jax.presets import preset
from lrd_jax.tuning import Tuning

TUNING = Tuning(r_f=0.2, tau_refine=0.01, tau_decode=0.5, max_entropy=0.3, reduce="max", scope="masked")
CERTIFICATE = {"risk": 0.02, "sequence": [{"bound": 0.01, "certified": True}, {"bound": 1e-05, "certified": False}]}


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize("guard", [0.3, float("inf")])
def test_a_file_reads_as_it_was_written(tmp_path, suffix, guard):
    file = tmp_path / f"preset.{suffix}"
    written = PresetFile(
        base="paper/llada-1.5/gsm8k",
        block_length=8,
        decoder=TUNING.replace(max_entropy=guard),
        measured={"model": 'a "name"\\with\nall', "prompt_hashes": ["a", "b"], "forwards": 3.25, "empty": []},
        certificate=CERTIFICATE,
    )
    write_preset(file, written)
    assert read_preset(file) == written
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_the_name_of_a_file_is_a_preset(tmp_path, suffix):
    name = str(tmp_path / f"mine.{suffix}")
    write_preset(name_path := tmp_path / f"mine.{suffix}", PresetFile(base="lrd", decoder=TUNING))
    config = preset(name, 32, block_length=16)
    assert name_path.is_file()
    assert config == TUNING.applied(DecodeConfig.lrd(32, block_length=16))
    assert (config.mix.r_f, config.refine.tau, config.stop.tau, config.stop.max_entropy) == (0.2, 0.01, 0.5, 0.3)
    assert config.divergence == Divergence("max", "masked")


def test_no_guard_is_a_stop_without_one(tmp_path):
    write_preset(tmp_path / "p.toml", PresetFile(base="lrd", decoder=TUNING.replace(max_entropy=float("inf"))))
    assert preset(str(tmp_path / "p.toml"), 32).stop.max_entropy is None


def test_the_files_window_gives_way_to_one_that_is_asked_for(tmp_path):
    write_preset(tmp_path / "p.json", PresetFile(base="lrd", block_length=8, decoder=TUNING))
    assert preset(str(tmp_path / "p.json"), 32).window == 8
    assert preset(str(tmp_path / "p.json"), 32, block_length=16).window == 16


@pytest.mark.parametrize("config", [DecodeConfig.lrd(64), DecodeConfig.paper(64)])
def test_a_decoders_own_tuning_changes_nothing(config):
    assert Tuning.of(config).applied(config) == config


GOOD = {"lrd_jax_preset": 1, "base": "lrd", "decoder": TUNING.to_json()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Expecting"),
        ("[1]", "lrd_jax_preset is missing: this is no preset file"),
        ({**GOOD, "lrd_jax_preset": 2}, "lrd_jax_preset=2 is a version that is not known here; 1 is"),
        ({"lrd_jax_preset": 1, "bass": "lrd"}, "bass is unknown; known: base, .*; base is missing; decoder is missing"),
        ({**GOOD, "base": 3, "block_length": "8"}, "base must be a name, got 3; block_length must be a whole number"),
        ({**GOOD, "base": "other.toml"}, "base='other.toml' is a file; a named preset was wanted"),
        ({**GOOD, "base": "lrdd"}, "preset 'lrdd' is unknown; choose one of lrd, paper"),
        ({**GOOD, "base": "plain"}, "the decoder has no mixing and no refinement and no stop to tune"),
        ({**GOOD, "block_length": 0}, "block_length=0 must be an integer of at least 1"),
        ({**GOOD, "block_length": 24}, "gen_length=64 must be a multiple of block_length=24"),
        ({**GOOD, "decoder": {**GOOD["decoder"], "tau": 1}}, "decoder.tau is unknown; known: r_f, tau_refine"),
        ({**GOOD, "decoder": {"r_f": 0.1}}, "decoder.tau_refine is missing; decoder.tau_decode is missing"),
        ({**GOOD, "decoder": {**GOOD["decoder"], "max_entropy": "off"}}, "must be a number or \"none\", got 'off'"),
        (
            {**GOOD, "decoder": {**GOOD["decoder"], "r_f": True, "scope": 1}},
            "r_f must be a number, got True; decoder.s",
        ),
        ({**GOOD, "decoder": {**GOOD["decoder"], "r_f": 2}}, r"Mix.r_f=2.0 must be in \[0, 1\]"),
        ({**GOOD, "decoder": {**GOOD["decoder"], "reduce": "median"}}, "reduce='median' must be one of mean, sum, max"),
        ({**GOOD, "decoder": {**GOOD["decoder"], "tau_decode": float("nan")}}, "tau=nan must be"),
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
    write_preset(tmp_path / "p.json", PresetFile(base="lrd", decoder=TUNING))
    before = (tmp_path / "p.json").read_bytes()
    with pytest.raises(TypeError):
        write_preset(tmp_path / "p.json", PresetFile(base="lrd", decoder=TUNING, measured={"x": object()}))
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"p.json": before}
