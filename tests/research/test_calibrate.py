"""Calibration: what is read off unstopped decodes is what decoding gives, in one compile; the command and its files."""

import dataclasses
import itertools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from sights import recorded

from lrd_jax import cli
from lrd_jax.checkpoint import load
from lrd_jax.cli import main
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode, run_decode, run_watched
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.decoding.text_form import changed
from lrd_jax.preset_files import PresetFile, read_preset, write_preset
from lrd_jax.presets import preset
from lrd_jax.research.calibrate.calibration import decoder_table
from lrd_jax.research.calibrate.judge import Judge
from lrd_jax.research.calibrate.outcomes import Decodes, Replays, Settlings, source_of, switch_of
from lrd_jax.research.calibrate.scan import Point, ahead, grid, knee, measure
from lrd_jax.research.calibrate.tunable import DIVERGENCES, Path, Tunable, least_sure
from lrd_jax.research.calibrate.tuning import Tuning
from lrd_jax.research.prompts import Example, read_examples
from lrd_jax.research.record import first_stop
from lrd_jax.tasks import problems
from lrd_jax.text import encode_prompts, pad_to_bucket

G, ROWS = 16, 10
INF = float("inf")
# Two a step: many forwards on which a stop is asked, and a base without a guard or threshold.
BASE = DecodeConfig.paper(G, commit=LowestEntropy(2), refine=Refine(max_steps=6))
PROBLEMS = [*problems("words", "held-out", 3, 7), *problems("code", "held-out", 3, 3)]
TUNINGS = grid(
    r_f=(0.0, 0.4),
    tau_refine=(1e-5, 0.05, 1.0),
    tau_decode=(0.003, 0.3),
    max_entropy=(0.3, INF),
    reduce=("mean", "sum", "max"),
    scope=("block", "masked"),
)


@pytest.fixture(scope="module")
def tunable():
    loaded = load("lrd-tiny")
    model, params, tokenizer, config = loaded.model, loaded.params, loaded.tokenizer, loaded.config
    prompt, mask = encode_prompts(tokenizer, [problem.prompt for problem in PROBLEMS], chat=False)
    return Tunable(model, params, BASE, *pad_to_bucket(prompt, mask, config.max_length - G), batch=5)


@pytest.fixture(scope="module")
def replays(tunable):
    return Replays(tunable)


def outcomes_of(source, tuning):
    source.prepare([t for t in TUNINGS if t.r_f == tuning.r_f])
    return source.outcomes(tuning)


def same(read_off, decoded):
    return all(a[1] == b[1] and np.array_equal(a[0], b[0]) for a, b in zip(read_off, decoded, strict=True))


# Replay.


@pytest.mark.slow
def test_every_setting_reads_as_it_decodes_and_all_share_one_compile(tunable, replays):
    """The slow twin of the replay: a real decode of every setting, of every row."""
    before = run_watched.cache_size(), run_decode.cache_size()
    seen = set()
    for number, tuning in enumerate(TUNINGS):
        outcomes = outcomes_of(replays, tuning)
        if number % 11 == 0:  # of 144: coprime to the number of values of every setting, so that all of them come
            assert same(outcomes, tunable.decoded(tuning)), tuning
        seen.update(forwards for _, forwards in outcomes)
    after = run_watched.cache_size(), run_decode.cache_size()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
    assert len(seen) > 6  # the stops did stop, at many places
    ways = len({(t.r_f, t.tau_refine, t.reduce, t.scope) for t in TUNINGS})
    assert replays.decodes < ways * ROWS / 2


@pytest.mark.slow
def test_the_traced_way_of_measuring_is_the_decoders_own(tunable, replays):
    tuning = next(t for t in TUNINGS if (t.reduce, t.scope, t.tau_refine, t.tau_decode) == ("max", "masked", 1.0, 0.3))
    config = tuning.applied(BASE)
    decode = make_decode(tunable._decoder.model, config)
    result = decode(tunable._params, tunable._prompt[:5], tunable._mask[:5])
    outcomes = outcomes_of(replays, tuning)[:5]
    assert np.array_equal(result.tokens, [tokens for tokens, _ in outcomes])
    assert result.forwards.tolist() == [forwards for _, forwards in outcomes]
    assert config.divergence == Divergence("max", "masked")


def path(**changes):
    """Four forwards of one row; stops are asked from the third on."""
    divergence = np.float32([np.inf, 0.2, 0.05, 0.01])
    fields = {
        "sight": recorded(divergence, [[3], [2], [1], [0.1]], [[0.1], [0.3], [0.5], [0.9]], refining=2),
        "divergence": np.tile(divergence[:, None], len(DIVERGENCES)),
        "answers": np.array([[0, 0], [1, 1], [2, 2]]),
        "answer": np.array([0, 0, 1, 2]),
        "tokens": np.array([9, 9]),
        "forwards": 4,
        "switch": 2,
    }
    return Path(**{**fields, **changes})


@pytest.mark.parametrize(
    ("stop", "answer", "forwards"),
    [
        (Stop(0.1), [1, 1], 3),
        (Stop(10.0), [1, 1], 3),  # not where it is not asked
        (Stop(0.05), [2, 2], 4),  # below, not at
        (Stop(0.1, max_entropy=1.0), [2, 2], 4),
        (Stop(0.1, min_confidence=0.5), [2, 2], 4),
        (Stop(0.1, min_confidence=0.4), [1, 1], 3),
        (Stop(0.1, max_entropy=0.05), [9, 9], 4),
        (Stop(0.0), [9, 9], 4),
    ],
)
def test_a_stop_is_read_off_where_it_says_yes_first(stop, answer, forwards):
    one = path()
    (at,) = first_stop(stop, jax.tree.map(lambda column: column[:, None], one.sight))
    tokens, count = one.outcome(at)
    assert (tokens.tolist(), count) == (answer, forwards)


@pytest.mark.parametrize("stop", [Stop(9.0, max_entropy=0.5), Stop(9.0, min_confidence=0.5), Stop(9.0)])
def test_the_least_sure_position_speaks_for_all_that_are_masked(stop):
    rng = np.random.default_rng(0)
    sight = recorded(np.zeros(200), *rng.uniform(0.3, 1, (2, 200, 3)))
    sight = sight.replace(masked=rng.random((200, 3)) < 0.6)
    said = stop(sight, ())
    np.testing.assert_array_equal(stop(least_sure(sight), ()), said)
    assert np.any(said) and np.all(said) == (stop.max_entropy is None and stop.min_confidence is None)


def test_the_switch_is_known_as_far_as_the_longest_refinement_tells():
    tuning = TUNINGS[0]
    assert switch_of({}, tuning, 20) is None
    paths = {1: path(), 4: path(switch=4)}
    assert switch_of(paths, tuning.replace(tau_refine=0.1), 20) == 3
    assert switch_of(paths, tuning.replace(tau_refine=0.01), 20) is None
    assert switch_of(paths, tuning.replace(tau_refine=0.01), 4) == 4


def test_several_blocks_are_decoded_anew(tunable):
    """A stop in the first block changes what the second begins with."""
    blocks = dataclasses.replace(BASE, block_length=8)
    of_blocks = Tunable(tunable._decoder.model, tunable._params, blocks, tunable._prompt, tunable._mask, 5)
    assert isinstance(source_of(tunable), Replays)
    assert isinstance(source_of(of_blocks), Decodes)


@pytest.mark.slow
@pytest.mark.parametrize("block_length", [None, 8])
def test_a_decoder_that_settles_reads_as_it_decodes(tunable, block_length):
    base = DecodeConfig.settle(G, block_length=block_length, refine=Refine(max_steps=6))
    settling = Tunable(tunable._decoder.model, tunable._params, base, tunable._prompt, tunable._mask, 5)
    source = source_of(settling)
    assert isinstance(source, Settlings if block_length is None else Decodes)
    tunings = grid((0.1, 0.6), (1e-5, 0.1, 1.0), (None,), (None,), ("mean",), ("block", "masked"))
    seen = set()
    for number, tuning in enumerate(tunings):
        source.prepare([t for t in tunings if t.r_f == tuning.r_f])
        outcomes = source.outcomes(tuning)
        if number % 5 == 0:
            assert same(outcomes, settling.decoded(tuning)), tuning
        seen.update(forwards for _, forwards in outcomes)
    assert len(seen) > 3
    assert source.decodes == (2 if block_length is None else len(tunings)) * ROWS
    assert max(forwards for _, forwards in settling.decoded(tunings[0].unstopped)) == 6 * base.num_blocks


def test_logits_that_are_not_finite_are_refused(tunable):
    params = jax.tree.map(lambda leaf: leaf * np.nan, tunable._params)
    broken = Tunable(tunable._decoder.model, params, BASE, tunable._prompt, tunable._mask, 5)
    with pytest.raises(ValueError, match="logits for prompt 1 are not finite"):
        Replays(broken).prepare(TUNINGS[:1])


# The scan.


def point(forwards, accuracy, agreement=0.5):
    return Point(tuning=TUNINGS[0], texts=("",), counts=(forwards,), agreement=agreement, accuracy=accuracy)


def test_the_front_is_what_no_other_beats():
    points = [point(3, 0.8), point(2, 0.5), point(4, 0.8), point(2, 0.6), point(5, 0.9), point(6, 0.85)]
    assert [(c.forwards, c.quality) for c in ahead(points)] == [(2, 0.6), (3, 0.8), (5, 0.9)]


def test_the_knee_is_where_the_front_bends():
    points = [point(2, 0.50), point(3, 0.52), point(4, 0.86), point(6, 0.89), point(10, 0.90)]
    assert knee(points, max_loss=1.0).forwards == 4
    assert knee(points, max_loss=0.05).forwards == 6  # what loses more is not looked at
    assert knee(points, max_loss=0.0).forwards == 10
    assert knee(points[:2], max_loss=1.0).forwards == 3  # two ends: the better answers


def test_quality_is_accuracy_where_answers_are_checked_and_agreement_elsewhere():
    assert point(1, 0.9, 0.3).quality == 0.9
    assert point(1, None, 0.3).quality == 0.3


def test_a_point_counts_right_answers_and_unchanged_texts():
    loaded = load("lrd-tiny")
    tokenizer, config = loaded.tokenizer, loaded.config
    examples = [Example(prompt=p.prompt, answer=p.answer, task=p.task) for p in PROBLEMS[:2]]
    judge = Judge(tokenizer, config, examples)
    ids = np.full((2, 64), config.eos_id)
    for row, example in enumerate(examples):
        answer = tokenizer(example.answer)["input_ids"]
        ids[row, : len(answer)] = answer
    reference = measure(TUNINGS[0], [(ids[0], 3), (ids[1], 3)], judge)
    assert (reference.forwards, reference.agreement, reference.accuracy) == (3, 1, 1)
    ids[1, 0] = config.eos_id  # an empty answer, whatever stands behind the end
    found = measure(TUNINGS[0], [(ids[0], 3), (ids[1], 6)], judge, reference)
    assert (found.forwards, found.agreement, found.accuracy) == (4.5, 0.5, 0.5)


def test_the_grid_has_every_combination_once_and_those_of_one_r_f_together():
    assert len(set(TUNINGS)) == len(TUNINGS) == 2 * 3 * 2 * 2 * 3 * 2
    assert len([r_f for r_f, _ in itertools.groupby(t.r_f for t in TUNINGS)]) == 2


# The data.


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "holds no prompts"),
        ('{"prompt": "a"}\n{"prompt": 3}\n\nx\n[]', "line 2: prompt must be text; line 4: not JSON .*; line 5: an obj"),
        ('{"answer": "a"}', "line 1: prompt is missing or empty"),
        ('{"prompt": " "}', "line 1: prompt is missing or empty"),
        ('{"prompt": "a", "answer": "b", "task": "chess"}', "task 'chess' is unknown; choose among words, code"),
        ('{"prompt": "a", "task": "words"}', "line 1: a line with a task needs its answer too"),
        ('{"prompt": "a", "answer": "b", "task": "words"}\n{"prompt": "a"}', "1 of 2 lines have a task"),
    ],
)
def test_broken_data_is_named_line_by_line(tmp_path, lines, words):
    (tmp_path / "prompts.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=rf"prompts\.jsonl.*{words}"):
        read_examples(tmp_path / "prompts.jsonl")


def test_fields_that_are_not_ours_are_passed_over(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "answer": "b", "level": 3}\n')
    assert read_examples(tmp_path / "p.jsonl") == [Example(prompt="a", answer="b")]


def test_prompts_may_come_by_a_pipe():
    reader, writer = os.pipe()
    with open(writer, "w") as file:
        file.write('{"prompt": "a"}\n')
    with open(reader):
        assert read_examples(pathlib.Path(f"/dev/fd/{reader}")) == [Example(prompt="a")]


# The command.


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize("named", ["lrd", "paper/llada-1.5/gsm8k", None])
def test_the_file_holds_everything_that_was_calibrated(tmp_path, suffix, named):
    """The settings that were chosen, and what was changed in the named preset before."""
    changes = {"block_length": 32, "cache": "dual", "commit": "threshold", "threshold": 0.7, "max_forwards": 9}
    base = preset(named or "lrd", 64, **changes)
    tuning = Tuning.of(base).replace(tau_decode=0.5, max_entropy=float("inf"))
    file = tmp_path / f"chosen.{suffix}"
    write_preset(file, PresetFile(base=named, decoder=decoder_table(named, base, tuning)))
    assert preset(str(file), 64) == tuning.applied(base)


@pytest.fixture
def data(tmp_path):
    lines = [{"prompt": p.prompt, "answer": p.answer, "task": p.task} for p in PROBLEMS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "prompts.jsonl"


def calibrate(data, *args):
    common = ("--gen-length", str(G), "--batch", "5", "--data", str(data))
    return main(["calibrate", *common, *map(str, args)])


SCAN = ("--r-f", 0.0, 0.2, "--tau-refine", 0.1, "--tau-decode", 0.1, 1.0, "--max-entropy", 0.2, "inf")


@pytest.mark.slow
def test_a_scan_writes_a_preset_that_decodes_and_is_certified_on_other_prompts(data, tmp_path, capsys):
    chosen, certified = tmp_path / "chosen.toml", tmp_path / "certified.json"
    assert calibrate(data, "--output", chosen, *SCAN) == 0
    out, err = capsys.readouterr()
    assert out.count(" chosen ") == 1
    assert f"{2 * 2 * 2 * 6} settings from " in err
    assert f"preset file: {chosen}" in err
    assert chosen.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    found = read_preset(chosen)
    assert (found.base, found.measured["prompts"], found.measured["decodes_that_differ"]) == ("lrd", ROWS, 0)
    assert found.measured["forwards"] <= found.measured["unstopped_forwards"]
    assert preset(str(chosen), G) == changed(DecodeConfig.lrd(G), found.decoder)
    written = {part: list(fields) for part, fields in found.decoder.items()}
    six = {"mix": ["r_f"], "refine": ["tau"], "stop": ["tau", "max_entropy"], "divergence": ["reduce", "scope"]}
    assert written == six

    assert calibrate(data, "--preset", chosen, "--risk", 0.5, "--output", certified) == cli.USER_ERROR
    assert f"{ROWS} of the {ROWS} prompts" in capsys.readouterr().err
    assert not certified.exists()

    others = [{"prompt": p.prompt} for p in problems("words", "held-out", 4, ROWS)]
    data.write_text("".join(json.dumps(line) + "\n" for line in others))
    assert calibrate(data, "--preset", chosen, "--risk", 0.5, "--output", certified) == 0
    assert "certified: the stop changed" in capsys.readouterr().err
    claim = read_preset(certified).certificate
    assert (claim["risk"], claim["confidence"], claim["prompts"]) == (0.5, 0.95, ROWS)
    assert claim["bound"] <= 0.5
    assert read_preset(certified).base == "lrd"
    last = [rung for rung in claim["sequence"] if rung["certified"]][-1]
    assert (last["changed"], last["bound"]) == (claim["changed"], claim["bound"])
    assert [rung["forwards"] for rung in claim["sequence"]] == sorted(
        (rung["forwards"] for rung in claim["sequence"]), reverse=True
    )


@pytest.mark.slow
def test_the_end_of_settling_is_chosen_and_certified(data, tmp_path, capsys):
    chosen, certified = tmp_path / "chosen.toml", tmp_path / "certified.toml"
    scan = (
        "--preset",
        "settle",
        "--refine.min-confidence",
        "none",
        "--r-f",
        0.2,
        1.0,
        "--tau-refine",
        0.01,
        0.1,
        "--model",
        "lrd-tiny-soft",
    )
    assert calibrate(data, *scan, "--output", chosen) == 0
    assert f"{2 * 2 * 6} settings from " in capsys.readouterr().err
    found = read_preset(chosen)
    assert (found.base, found.measured["decodes_that_differ"]) == ("settle", 0)
    assert preset(str(chosen), G) == changed(DecodeConfig.settle(G, refine=Refine()), found.decoder)
    assert set(found.decoder) == {"mix", "refine", "divergence"}

    others = [{"prompt": p.prompt} for p in problems("words", "held-out", 4, ROWS)]
    data.write_text("".join(json.dumps(line) + "\n" for line in others))
    assert calibrate(data, "--preset", chosen, "--model", "lrd-tiny-soft", "--risk", 0.5, "--output", certified) == 0
    claim = read_preset(certified).certificate
    assert claim["method"].endswith("rising tau_refine")
    taus, forwards = zip(*((rung["tau_refine"], rung["forwards"]) for rung in claim["sequence"]), strict=True)
    assert list(taus) == sorted(taus) and list(forwards) == sorted(forwards, reverse=True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--risk", 0.02), f"{ROWS} prompts cannot certify risk 0.02 at confidence 0.95: it takes at least 149"),
        (("--risk", 2), "risk=2.0 must be above 0 and below 1"),
        (("--preset", "fast"), "preset fast: the decoder has no mixing and no refinement and no stop to tune"),
        (("--r-f", 2), "mix.r_f=2.0 must be in [0, 1]"),
        (("--reduce", "median"), "divergence.reduce='median' must be one of mean, sum, max"),
        (("--temperature", 1), "the decoder draws its tokens or its order"),
        (("--commit", "best"), "commit='best' is unknown; choose one of all, capped, dream"),
        (("--model", "lrd-huge"), "there is no model 'lrd-huge'"),
        (("--output", "preset.yaml"), "preset.yaml must end in .json or .toml"),
        (("--data", "missing.jsonl"), "missing.jsonl: no such file"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_and_leaves_nothing(data, tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    assert calibrate(data, *args) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert [f.name for f in tmp_path.iterdir()] == [data.name]
