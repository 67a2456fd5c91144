"""Decoders by name, the paper's settings as data, and numbers changed in a decoder."""

import jax
import pytest

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.commit.basic import LowestEntropy, Threshold
from lrd_jax.decoding.parts.commit.reference import DreamThreshold
from lrd_jax.presets import BENCHMARKS, DECODERS, PAPER_GEN_LENGTHS, adjusted, paper_config, preset


@pytest.mark.parametrize("name", DECODERS)
def test_a_preset_is_the_decoder_of_its_name(name):
    assert preset(name, 64, block_length=16) == getattr(DecodeConfig, name)(64, block_length=16)


@pytest.mark.parametrize(
    ("checkpoint", "windows"),
    [
        ("llada-8b-base", (512, 512, 512, 512)),
        ("llada-8b-instruct", (32, 32, 8, 64)),
        ("llada-1.5", (32, 32, 16, 128)),
        ("dream-7b-base", (512, 512, 512, 512)),
        ("dream-7b-instruct", (512, 512, 512, 512)),
    ],
)
def test_the_papers_windows(checkpoint, windows):
    assert tuple(paper_config(checkpoint, benchmark).window for benchmark in BENCHMARKS) == windows


@pytest.mark.parametrize("gen_length", PAPER_GEN_LENGTHS)
def test_the_papers_numbers(gen_length):
    config = preset("paper/llada-1.5/math500", gen_length)
    got = (config.gen_length, config.mix.top_p, config.refine.tau, config.refine.max_steps, config.stop.tau)
    assert got == (gen_length, 0.9, 0.1, 20, 0.1)
    assert 0.1 <= config.mix.r_f <= 0.2
    assert config.stop.max_entropy is config.stop.min_confidence is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lrdd", "preset 'lrdd' is unknown; choose one of lrd, paper, plain, fast, llada, dream"),
        ("paper/llada-1.5", "paper/CHECKPOINT/BENCHMARK"),
        ("paper/llada-2/gsm8k", "checkpoint 'llada-2' is not one of the paper's: llada-8b-base"),
        ("paper/llada-1.5/mmlu", "benchmark 'mmlu' is not one of the paper's: humaneval"),
    ],
)
def test_an_unknown_preset_is_named_with_the_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        preset(name, 64)


def test_a_canvas_that_the_papers_window_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="gen_length=100 must be a multiple of block_length=64"):
        preset("paper/llada-8b-instruct/math500", 100)


def test_adjusted_changes_each_number_and_nothing_else():
    paper = DecodeConfig.paper(64, block_length=32, commit=LowestEntropy(threshold=0.8))
    changed = adjusted(paper, r_f=0.4, top_p=0.5, tau=0.02, threshold=0.7, temperature=0.3)
    got = (changed.mix.r_f, changed.mix.top_p, changed.refine.tau, changed.stop.tau, changed.commit.threshold)
    assert (*got, changed.draw.temperature) == (0.4, 0.5, 0.02, 0.02, 0.7, 0.3)
    assert jax.tree.structure(changed) == jax.tree.structure(paper)


def test_adjusted_leaves_what_is_not_given():
    config = DecodeConfig.lrd(64)
    assert adjusted(config) == config


@pytest.mark.parametrize("commit", [LowestEntropy(), Threshold(), DreamThreshold()])
def test_every_commit_rule_with_a_threshold_takes_one(commit):
    assert adjusted(DecodeConfig(64, commit=commit), threshold=0.55).commit.threshold == 0.55


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("plain", {"r_f": 0.1}, "r_f and top_p change the mixing"),
        ("fast", {"tau": 0.1}, "tau changes the refinement and the stop"),
        ("llada", {"threshold": 0.9}, "threshold changes a commit rule that has one"),
        ("lrd", {"r_f": 2.0}, r"Mix.r_f=2.0 must be in \[0, 1\]"),
        ("lrd", {"tau": -1.0}, "tau=-1.0 must be"),
        ("lrd", {"temperature": -0.5}, "temperature=-0.5 must be"),
    ],
)
def test_a_number_without_a_part_or_out_of_range_is_refused(name, numbers, message):
    with pytest.raises(ValueError, match=message):
        adjusted(preset(name, 64), **numbers)
