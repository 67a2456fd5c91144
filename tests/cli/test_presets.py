"""Decoders by name, the paper's settings as data, and numbers changed in a decoder."""

import pytest

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.dkv import DKVCache
from lrd_jax.decoding.parts.cache.dllm import DLLMCache
from lrd_jax.decoding.parts.cache.sparse import SparseCache
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.parts.commit.reference import Dream
from lrd_jax.decoding.parts.draw import Draw
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.presets import BENCHMARKS, DECODERS, PAPER_GEN_LENGTHS, paper_config, preset
from lrd_jax.published import PUBLISHED, USUAL

CACHED = {"dllm-cache": DLLMCache(50, 7, 0.25), "sparse-dllm": SparseCache(0.5, 3), "dkv-cache": DKVCache(8)}


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in CACHED])
def test_a_preset_is_the_decoder_of_its_name(name):
    assert preset(name, 64, block_length=16) == getattr(DecodeConfig, name)(64, block_length=16)


@pytest.mark.parametrize("name", CACHED)
def test_the_fields_caches_stand_beside_lladas_sampler(name):
    wanted = DecodeConfig.llada(64, steps=32, block_length=16, cache=CACHED[name])
    assert preset(name, 64, block_length=16, steps=32) == wanted


def test_lrd_is_the_models_own_where_it_carries_one(tmp_path):
    file = tmp_path / "decoder.toml"
    file.write_text('lrd_jax_preset = 2\nbase = "lrd"\n\n[decoder.mix]\nr_f = 1.0\n')
    own = preset("lrd", 64, model=tmp_path)
    assert own == DecodeConfig.lrd(64, mix=Mix(r_f=1.0))
    assert preset("lrd", 64, model=tmp_path, r_f=0.5) == DecodeConfig.lrd(64, mix=Mix(r_f=0.5))
    for name, model in (("lrd", None), ("lrd", "lrd-tiny"), ("lrd", tmp_path / "absent"), ("paper", tmp_path)):
        assert preset(name, 64, model=model) == preset(name, 64)
    file.write_text("lrd_jax_preset = 2\n")
    with pytest.raises(ValueError, match="decoder is missing"):
        preset("lrd", 64, model=tmp_path)


def test_the_refined_model_carries_what_its_front_chose():
    own = preset("lrd", 64, model="lrd-tiny-refined")
    assert (own.mix.r_f, own.refine.tau, own.refine.min_confidence) == (1.0, 0.03, 0.8)
    assert own.commit == LowestEntropy(threshold=0.0)  # everything at once, and --threshold can still be asked for


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


PUBLISHED_NAMES = [
    f"{name}/{checkpoint}/{benchmark}"
    for name, by_checkpoint in PUBLISHED.items()
    for checkpoint, by_benchmark in by_checkpoint.items()
    for benchmark in by_benchmark
]


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_what_was_published_by_benchmark_is_its_decoder_with_other_numbers(name):
    decoder, checkpoint, benchmark = name.split("/")
    config, usual = preset(name, 256), preset(decoder, 256)
    assert (type(config.cache), type(config.mix), type(config.stop)) == tuple(
        type(getattr(usual, part)) for part in ("cache", "mix", "stop")
    )
    is_dreams = checkpoint.startswith("dream") and decoder == "dllm-cache"
    assert type(config.commit) is (Dream if is_dreams else type(usual.commit))
    assert preset(name, 256, block_length=16).window == 16
    if checkpoint == USUAL:
        assert preset(f"{decoder}/{benchmark}", 256) == config


def test_settings_of_the_scripts():
    assert preset("dllm-cache/gsm8k", 256) == DecodeConfig.llada(256, block_length=8, cache=DLLMCache(50, 7, 0.25))
    assert preset("wino/mbpp", 256) == DecodeConfig.wino(256, block_length=128, threshold=0.8)
    warm = Draw(temperature=0.2, top_p=0.95)
    wanted = DecodeConfig.klass(256, confidence=0.9, kl=0.005, draw=warm)
    assert preset("klass/dream-7b-instruct/math", 256) == wanted


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


def test_a_window_that_is_asked_for_stands_in_for_the_papers():
    assert preset("paper/llada-8b-instruct/math500", 100, block_length=50).window == 50


def test_changes_go_by_any_name():
    changes = {"commit": "threshold", "commit.threshold": "0.7", "mix": None, "max_forwards": 9}
    config = preset("lrd", 64, refine=Refine(0.5), **changes)
    assert (config.commit.threshold, config.mix, config.max_forwards, config.refine) == (0.7, None, 9, Refine(0.5))


def test_short_names_mean_one_thing_each():
    paper = preset("paper", 64, block_length=32, commit=LowestEntropy(threshold=0.8), mix=Mix(top_p=0.6))
    changed = preset(
        "paper",
        64,
        block_length="32",
        r_f="0.4",
        top_p="0.5",
        top_k="20",
        tau="0.02",
        threshold="0.7",
        temperature="0.3",
        **{"mix.top_p": 0.6},
    )
    got = (changed.mix.r_f, changed.mix.top_p, changed.refine.tau, changed.stop.tau, changed.commit.threshold)
    assert got == (0.4, 0.6, 0.02, 0.02, 0.7)
    assert (changed.draw.temperature, changed.draw.top_p, changed.draw.top_k) == (0.3, 0.5, 20)
    assert changed.replace(draw=paper.draw, refine=paper.refine, stop=paper.stop, commit=paper.commit) == paper.replace(
        mix=changed.mix
    )


@pytest.mark.parametrize("rule", ["lowest-entropy", "threshold", "dream-threshold", "margin"])
def test_every_commit_rule_with_a_threshold_takes_one(rule):
    assert preset("plain", 64, commit=rule, threshold=0.55).commit.threshold == 0.55


def test_tau_is_that_of_the_parts_there_are():
    config = preset("lrd", 64, tau=0.5, stop="none")
    assert (config.refine.tau, config.stop) == (0.5, None)


def test_steps_are_those_of_a_plan():
    assert preset("llada", 64, steps=16) == DecodeConfig.llada(64, steps=16)
    assert preset("dream", 64, steps=16) == DecodeConfig.dream(64, steps=16)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "plain",
            {"r_f": 0.1},
            "r_f changes the mixing, which this decoder does not have; .* lrd, paper or settle",
        ),
        ("fast", {"tau": 0.1}, "tau changes the refinement and the stop"),
        ("llada", {"threshold": 0.9}, "threshold changes a commit rule that has one"),
        ("lrd", {"steps": 8}, "steps changes a commit rule that plans its steps"),
        ("lrd", {"r_f": 2.0}, r"mix.r_f=2.0 must be in \[0, 1\]"),
        ("lrd", {"tau": -1.0}, "tau=-1.0 must be"),
        ("lrd", {"temperature": -0.5}, "temperature=-0.5 must be"),
        ("lrd", {"tau": 0.1, "stop.tau": 0.2}, "tau and stop.tau are the same; leave one of them out"),
        ("lrd", {"nucleus": 0.1}, "nucleus is unknown; known: gen_length, block_length"),
    ],
)
def test_a_number_without_a_part_or_out_of_range_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        preset(name, 64, **changes)
