"""Evaluations without lm-eval: decoding, records that survive a kill, grading, figures, likelihoods, refusals."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from decimal import Decimal
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from byte_model import write_byte_model
from rich.console import Console

from lrd_jax.checkpoint import load
from lrd_jax.cli import USER_ERROR, main
from lrd_jax.cli.eval import trials_of
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.parts.cache.region import DualCache
from lrd_jax.decoding.parts.commit.basic import LowestEntropy, Threshold
from lrd_jax.decoding.parts.draw import Draw
from lrd_jax.decoding.text_form import from_table
from lrd_jax.models.checkpoints import CHECKPOINTS
from lrd_jax.presets import BENCHMARKS, PAPER_BLOCK_LENGTHS, PAPER_CHECKPOINTS
from lrd_jax.research.benchmarks.arguments import ModelArguments
from lrd_jax.research.benchmarks.benchmarks import BASE, INSTRUCT, prompting
from lrd_jax.research.benchmarks.decoding import TextDecoder
from lrd_jax.research.benchmarks.gold import GoldAnswers, gold_output
from lrd_jax.research.benchmarks.options import Eval
from lrd_jax.research.benchmarks.programs import Programs
from lrd_jax.research.benchmarks.progress import RunProgress
from lrd_jax.research.benchmarks.rating import Rater
from lrd_jax.research.benchmarks.records import Record, RecordFile, read_records, same_settings
from lrd_jax.research.benchmarks.requests import Grade, Reply, Request, answer_all, cut_at_stop, numbered
from lrd_jax.research.benchmarks.scoring import final_number, grade
from lrd_jax.research.benchmarks.summary import markdown, summarize
from lrd_jax.research.benchmarks.trials import RECORDS, SETTINGS, Trial, baseline_records
from lrd_jax.research.likelihood import make_log_likelihood
from lrd_jax.research.sandbox import Outcome, Status, Verdict

pytestmark = pytest.mark.slow

CONFIG = DecodeConfig.plain(8, per_step=4)
PROMPTS = ["How many?", "One.", "Two and two are", "Say it again, please: ", "x = ", "naïve 東京"]
UNGRADED = Grade(None, "not graded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_byte_model(tmp_path_factory.mktemp("bytes"), max_length=128)


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


def requests_of(prompts=PROMPTS, until=()):
    return numbered([("task", i, prompt, until, {"n": i}) for i, prompt in enumerate(prompts)])


def without_seconds(records):
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def record(index, *, seconds=1.0, correct=True, forwards=8, tokens=4, task="t"):
    facts = {"forwards": forwards, "refine_forwards": 2, "stop_reason": "finished", "effective_tokens": tokens}
    return Record(
        **facts, task=task, index=index, repeat=0, prompt="p", output="o", seconds=seconds, correct=correct, verdict="v"
    )


def run_all(requests, answerer, path, **more):
    with RecordFile(path) as file:
        return answer_all(requests, answerer, file, grade=lambda request, text: UNGRADED, **more)


# Decoding.


def test_answers_are_what_the_library_decodes_row_by_row(loaded, tmp_path):
    requests = requests_of(["How many?", "How often", "Why?   so"])  # of one length, so that one shape compiles
    records = run_all(requests, TextDecoder(loaded, CONFIG, batch=2), tmp_path / "r.jsonl")
    decode = make_decode(loaded.model, CONFIG)
    for request, got in zip(requests, records, strict=True):
        result = decode(loaded.params, np.array([loaded.tokenizer(request.prompt)["input_ids"]]))
        row = result.tokens[0].tolist()
        kept = row[: next((i for i, token in enumerate(row) if token in loaded.config.end_ids), None)]
        assert got.output == loaded.tokenizer.decode(kept, skip_special_tokens=True)
        assert (got.forwards, got.refine_forwards, got.stop_reason) == (2, 0, "finished")
        assert got.effective_tokens == len(kept)
        assert got.seconds > 0


def test_longest_prompts_come_first_in_batches_that_depend_on_all_requests(loaded):
    plan = TextDecoder(loaded, CONFIG, batch=4).plan(requests_of())
    assert [len(batch) for batch in plan] == [4, 2]
    lengths = [len(PROMPTS[i].encode()) for batch in plan for i in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_an_answer_ends_before_its_first_stop_string_and_counts_the_tokens_up_to_it(loaded, tmp_path):
    (whole,) = run_all(requests_of(PROMPTS[:1]), TextDecoder(loaded, CONFIG), tmp_path / "whole.jsonl")
    stop = whole.output[3]
    cut = whole.output.index(stop)
    requests = requests_of(PROMPTS[:1], until=("never", stop))
    (got,) = run_all(requests, TextDecoder(loaded, CONFIG), tmp_path / "cut.jsonl")
    assert got.output == whole.output[:cut]
    assert len(loaded.tokenizer(got.output)["input_ids"]) <= got.effective_tokens <= whole.effective_tokens


@pytest.mark.parametrize(
    ("until", "left"), [((), "a b\nc"), (("c", "b"), "a "), (("",), "a b\nc"), (("x",), "a b\nc"), (("a",), "")]
)
def test_text_is_cut_at_the_first_stop_string(until, left):
    assert cut_at_stop("a b\nc", until) == left


def test_draws_depend_on_the_sample_and_not_on_its_batch(loaded, tmp_path):
    config = DecodeConfig.plain(8, per_step=4, draw=Draw(1.0))
    requests = requests_of(PROMPTS[:2])
    alone = run_all(requests, TextDecoder(loaded, config, batch=1), tmp_path / "alone.jsonl")
    together = run_all(requests, TextDecoder(loaded, config, batch=2), tmp_path / "together.jsonl")
    other = run_all(requests, TextDecoder(loaded, config, batch=2, seed=1), tmp_path / "other.jsonl")
    assert without_seconds(alone) == without_seconds(together) != without_seconds(other)


def test_repetitions_of_a_problem_are_drawn_anew(loaded, tmp_path):
    config = DecodeConfig.plain(8, per_step=4, draw=Draw(1.0))
    requests = numbered([("task", 0, "One.", (), {})] * 2)
    first, second = run_all(requests, TextDecoder(loaded, config, batch=2), tmp_path / "r.jsonl")
    assert (first.repeat, second.repeat) == (0, 1)
    assert first.output != second.output


def test_the_begin_token_stands_before_plain_prompts_only(loaded):
    plain, begun = TextDecoder(loaded, CONFIG), TextDecoder(loaded, CONFIG, begin_token=True)
    assert begun.encode("One.") == [2, *plain.encode("One.")]
    assert begun.encode("<|startoftext|>One.") == plain.encode("<|startoftext|>One.") == begun.encode("One.")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("x" * 121, r"the prompt of task 0 has 121 tokens; 1 to 120 fit beside a canvas of 8 into the context of 128"),
        ("", "the prompt of task 0 has 0 tokens"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_anything_is_decoded(loaded, tmp_path, prompt, words):
    with pytest.raises(ValueError, match=words):
        run_all(requests_of([prompt, "One."]), TextDecoder(loaded, CONFIG), tmp_path / "r.jsonl")
    assert read_records(tmp_path / "r.jsonl") == []


def test_words_that_a_small_vocabulary_lacks_are_refused():
    tiny = TextDecoder(load("lrd-tiny"), CONFIG)
    with pytest.raises(ValueError, match="the model does not know 'Janet' in the prompt of task 0"):
        tiny.plan(requests_of(["Janet sells eggs."]))


# Records.


class Echo:
    """An answerer without a model, which counts what it answers."""

    def __init__(self, batch=2):
        self.batch, self.answered = batch, []

    def plan(self, requests):
        return [list(range(i, min(i + self.batch, len(requests)))) for i in range(0, len(requests), self.batch)]

    def answer(self, requests):
        self.answered.append([request.index for request in requests])
        facts = {"forwards": 1, "refine_forwards": 0, "stop_reason": "finished", "effective_tokens": 1, "seconds": 1.0}
        return [Reply(output=request.prompt.upper(), **facts) for request in requests]


def test_what_is_recorded_is_not_answered_again(tmp_path):
    path, reported = tmp_path / "r.jsonl", []
    first = run_all(requests_of(PROMPTS[:3]), Echo(), path)
    echo = Echo()
    more = run_all(requests_of(), echo, path, report=lambda records: reported.append([r.index for r in records]))
    assert more[:3] == first
    assert [r.output for r in more] == [prompt.upper() for prompt in PROMPTS]
    assert echo.answered == [[2, 3], [4, 5]]  # 2 was there, but belongs to the batch of 3
    assert reported == [[0, 1, 2], [3], [4, 5]]
    assert [r.index for r in read_records(path)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("lost", [1, 30, 10_000])
def test_a_line_that_was_cut_short_is_answered_again(tmp_path, lost):
    path = tmp_path / "r.jsonl"
    whole = run_all(requests_of(), Echo(), path)
    path.write_bytes(path.read_bytes()[:-lost])
    assert run_all(requests_of(), Echo(), path) == whole
    assert read_records(path) == whole
    assert path.read_bytes().count(b"\n") == len(whole)


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    run_all(requests_of(), Echo(), path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"task": 3}', *lines[2:], ""]))
    with pytest.raises(ValueError, match=r"r\.jsonl, line 2 is no record"):
        read_records(path)


def test_records_of_another_prompt_are_refused(tmp_path):
    run_all(requests_of(["One."]), Echo(), tmp_path / "r.jsonl")
    with pytest.raises(ValueError, match=r"answers another prompt for task 0: it begins 'One\.', asked was 'Two\.'"):
        run_all(requests_of(["Two."]), Echo(), tmp_path / "r.jsonl")


def test_two_runs_do_not_write_one_file(tmp_path):
    with RecordFile(tmp_path / "r.jsonl"), pytest.raises(ValueError, match="being written by another run"):
        read_records(tmp_path / "r.jsonl")


def test_other_settings_are_refused_with_both_values(tmp_path):
    path = tmp_path / "run" / SETTINGS
    same_settings(path, {"model": "a", "r_f": 0.1, "limits": (1, 2)})
    same_settings(path, {"model": "a", "r_f": 0.1, "limits": (1, 2)})
    with pytest.raises(ValueError, match=r"holds a run with r_f=0.1; asked was r_f=0.2: choose another folder"):
        same_settings(path, {"model": "a", "r_f": 0.2, "limits": (1, 2)})


KILLED = """
import sys, time
from pathlib import Path
import jax
from lrd_jax.checkpoint import load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.research.benchmarks.decoding import TextDecoder
from lrd_jax.research.benchmarks.records import RecordFile
from lrd_jax.research.benchmarks.requests import Grade, answer_all, numbered
folder, path, prompts = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
requests = numbered([("task", i, prompt, (), {}) for i, prompt in enumerate(prompts)])
with RecordFile(path) as file:
    answer_all(requests, TextDecoder(load(folder), DecodeConfig.plain(8, per_step=4), batch=2), file,
               grade=lambda request, text: time.sleep(0.2) or Grade(None, "not graded"))
"""


def test_a_killed_run_goes_on_to_the_records_of_an_unbroken_one(folder, loaded, tmp_path):
    prompts = [f"{prompt} {i}" for i in range(4) for prompt in PROMPTS]
    path = tmp_path / "killed.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(path), *prompts])
    try:
        give_up = time.monotonic() + 120
        while not (path.exists() and path.read_bytes().count(b"\n") >= 4):
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = read_records(path)
    assert 0 < len(before) < len(prompts)
    resumed = run_all(requests_of(prompts), TextDecoder(loaded, CONFIG, batch=2), path)
    unbroken = run_all(requests_of(prompts), TextDecoder(loaded, CONFIG, batch=2), tmp_path / "unbroken.jsonl")
    assert read_records(path)[: len(before)] == before
    assert len(read_records(path)) == len(prompts)
    assert without_seconds(resumed) == without_seconds(unbroken)


# Grading.


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16 - 3 = <<16-3=13>>13\n#### 18", "18"),
        ("So she makes $1,234.50 a day.", "1234.50"),
        ("The answer is 18. That is 2 more than 16.", "18"),
        ("The answer is $70,000.", "70000"),
        (r"Hence \boxed{\$18}? No: \boxed{-3}", "-3"),
        ("#### -5", "-5"),
        ("It is 18.", "18"),
        ("nothing", None),
        ("", None),
    ],
)
def test_final_numbers(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("output", "right"), [("The answer is 18.0.", True), ("The answer is 17.", False), ("", False)]
)
def test_gsm8k_compares_numbers(output, right):
    assert grade("gsm8k", {"answer": "2 * 9 = 18\n#### 18"}, output, None).correct is right


class Told:
    """A `Verdict` that was decided beforehand, in place of a sandbox."""

    def __init__(self, passed, *outcome):
        self.verdict = Verdict(passed, Outcome(*outcome, seconds=0.1))

    def examine(self, exam):
        return self.verdict


@pytest.mark.parametrize(
    ("outcome", "correct", "verdict"),
    [
        ((Status.EXITED, 0, ""), True, "passed"),
        ((Status.EXITED, 0, ""), False, "exit status 0"),
        ((Status.EXITED, 1, "Traceback\nAssertionError\n"), False, "AssertionError"),
        ((Status.WALL_TIME, None, "so far"), False, "wall time"),
    ],
)
def test_verdicts_on_programs(monkeypatch, outcome, correct, verdict):
    monkeypatch.setattr("lrd_jax.research.benchmarks.programs.Sandbox", lambda limits, unsafe: Told(correct, *outcome))
    programs, problem = Programs(), {"test_list": ["assert x == 1"]}
    assert grade("mbpp", problem, "x = 1", programs.grade) == Grade(correct, verdict)
    assert programs.passes("x = 1", "assert x == 1") is correct


def test_gold_answers_of_instruct_tasks_close_their_code_block():
    assert gold_output("mbpp_instruct", {"code": "def f(): pass"}) == "\ndef f(): pass\n```"
    assert gold_output("humaneval_instruct", {"canonical_solution": "    pass"}) == "    pass\n```"
    assert gold_output("mbpp", {"code": "def f(): pass"}) == "def f(): pass\n[DONE]"
    asked = Request(task="mbpp", index=0, repeat=0, prompt="", until=("[DONE]",), problem={"code": "x = 1"})
    assert [answer.output for answer in GoldAnswers().answer([asked])] == ["x = 1\n"]


# Figures.


def test_figures_of_a_run():
    records = [record(i, correct=i < 3, seconds=0.5, tokens=10, forwards=4) for i in range(4)]
    baseline = [record(i, seconds=2.0, forwards=16) for i in (0, 1)] + [record(9, seconds=100.0)]
    got = summarize(records, baseline)
    assert (got.samples, got.right, got.accuracy) == (4, 3, 0.75)
    assert (got.low, got.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert got.tokens_per_second == 20.0
    assert (got.speedup, got.fewer_forwards) == (4.0, 4.0)
    assert summarize(records).speedup is None
    assert "| mine | 4 | 75.0 (30.1-95.4) | 4.0 | 2.0 | 10.0 | 20.00 | 4.00x | finished 4 |" in markdown(
        [("mine", got)]
    )


def test_progress_tells_accuracy_and_time_left_where_there_is_no_terminal(monkeypatch):
    clock = iter([0.0, 10.0, 100.0, 200.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with RunProgress("gsm8k", 4, Console(file=out, width=100)) as report:
        report([record(0)])
        report([record(1, correct=False)])
        report([record(2), record(3)])
    assert out.getvalue().splitlines() == [
        "gsm8k: 2 of 4, 50.0 % right, 0:03:00 left",
        "gsm8k: 4 of 4, 75.0 % right, done",
    ]


def trial(preset="paper", numbers=(), **changes):
    fields = {"model": "m", "checkpoint": "llada-8b-base", "benchmark": "gsm8k", "asked": BASE["gsm8k"]}
    more = {"gen_length": 64, "config": CONFIG, "chat": False, "begin_token": False}
    return Trial(**{**fields, **more, "preset": preset, "changes": dict(numbers), **changes})


def test_the_baseline_is_the_plain_run_of_the_same_prompts_and_length(tmp_path):
    for other in (trial("plain"), trial("plain", gen_length=32), trial("plain", {"temperature": 0.5}), trial("lrd")):
        same_settings(other.folder(tmp_path) / SETTINGS, other.to_json())
        with RecordFile(other.folder(tmp_path) / RECORDS) as file:
            file.append([record(0, task=other.name)])
    assert [r.task for r in baseline_records(trial(), tmp_path)] == ["gsm8k-plain-64"]
    assert baseline_records(trial("plain"), tmp_path) == []
    assert baseline_records(trial(model="other"), tmp_path) == []


# Likelihoods.


def test_padding_a_prompt_does_not_change_its_likelihood(loaded):
    key, answer = jax.random.key(0), np.array([40, 41, 42])
    estimate = make_log_likelihood(loaded.model, num_samples=8, batch_size=4)
    prompt = np.array([20, 21, 22, 23, 24])
    padded, mask = np.array([0, 0, 0, *prompt]), np.array([False] * 3 + [True] * 5)
    want = estimate(loaded.params, prompt, answer, key)
    np.testing.assert_allclose(estimate(loaded.params, padded, answer, key, mask), want, rtol=1e-5)
    assert abs(float(estimate(loaded.params, padded, answer, key)) - float(want)) > 1e-3


def test_ratings_do_not_depend_on_the_order_of_the_pairs(loaded):
    pairs = [([20, 21], [30, 31]), ([22], [30, 31]), ([20, 21], [32, 33])]
    rater = Rater(loaded, samples=8, batch=4)
    forth = [rater.log_likelihood(*pair) for pair in pairs]
    assert [rater.log_likelihood(*pair) for pair in pairs[::-1]] == forth[::-1]
    assert len(set(forth)) == 3


def test_greedy_continuations_are_those_that_lladas_sampler_writes(loaded):
    decode = make_decode(loaded.model, DecodeConfig.llada(2))
    contexts = [[20, 21, 22], [50, 51, 52], [60, 61, 62]]
    written = [decode(loaded.params, np.array([context])).tokens[0].tolist() for context in contexts]
    wrong = [[token ^ 1 for token in row] for row in written]
    pairs = [*zip(contexts, written, strict=True), *zip(contexts, wrong, strict=True)]
    assert Rater(loaded, samples=8, batch=2).greedy(pairs) == [True] * 3 + [False] * 3


# Settings.


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_shots_of_the_paper(checkpoint):
    asked = {benchmark: prompting(checkpoint, benchmark) for benchmark in BENCHMARKS}
    shots = {benchmark: each.shots for benchmark, each in asked.items()}
    if CHECKPOINTS[checkpoint].chat:
        assert asked == INSTRUCT
        assert set(shots.values()) == {0}
    else:
        assert asked == BASE
        assert shots == {"humaneval": 0, "mbpp": 3, "gsm8k": 8, "math500": 4}


TASKS_OF_BASE = {
    "humaneval": ("humaneval", 0),
    "mbpp": ("mbpp", 3),
    "gsm8k": ("gsm8k_cot", 8),
    "math500": ("minerva_math500", 4),
}
TASKS_OF_TUNED = {
    "humaneval": ("humaneval_instruct", 0),
    "mbpp": ("mbpp_instruct", 0),
    "gsm8k": ("gsm8k_cot", 0),
    "math500": ("minerva_math500", 0),
}


@pytest.mark.parametrize(
    ("checkpoint", "preset", "windows"),
    [
        ("llada-8b-base", "paper", (512, 512, 512, 512)),
        ("llada-8b-instruct", "paper", (32, 32, 8, 64)),
        ("llada-8b-instruct", "plain", (32, 32, 8, 64)),
        ("llada-1.5", "fast", (32, 32, 16, 128)),
        ("dream-7b-instruct", "lrd", (512, 512, 512, 512)),
    ],
)
def test_every_decoder_takes_the_papers_blocks(checkpoint, preset, windows):
    trials = trials_of(Eval(model="lrd-tiny", settings=checkpoint, preset=preset))
    assert tuple(each.config.window for each in trials) == windows
    assert [each.chat for each in trials] == [CHECKPOINTS[checkpoint].chat] * 4
    assert [each.benchmark for each in trials] == list(BENCHMARKS)


def documented(command):
    """The lines of the page that begin with a command, as arguments without it."""
    page = Path(__file__).parents[2] / "docs" / "evaluation-harness.md"
    lines = (line.split() for line in page.read_text().splitlines() if line.startswith(f"    lrd-jax {command} "))
    return [line[2:] for line in lines]


def test_each_checkpoint_has_its_line_in_the_documentation():
    """What the line asks of lm-eval is what the checkpoint's row of the page's table says, at the paper's blocks."""
    lines = [tyro.cli(Eval, args=line) for line in documented("eval") if "--gen-length" in line]
    assert [options.model for options in lines] == list(PAPER_CHECKPOINTS)
    for options in lines:
        trials = trials_of(dataclasses.replace(options, settings=options.model))
        tasks = {trial.benchmark: (trial.asked.task, trial.asked.shots) for trial in trials}
        assert tasks == (TASKS_OF_TUNED if CHECKPOINTS[options.model].chat else TASKS_OF_BASE)
        blocks = PAPER_BLOCK_LENGTHS.get(options.model, {})
        assert {(trial.preset, trial.config.gen_length) for trial in trials} == {("paper", 512)}
        assert [trial.config.window for trial in trials] == [blocks.get(name, 512) for name in tasks]
    hub = {model: hub_id for hub_id, model, *_ in documented("convert")}
    assert hub == {name: CHECKPOINTS[name].hub_id for name in PAPER_CHECKPOINTS}


def test_changes_change_the_decoder_and_its_folder():
    changes = {"r_f": "0.30", "block_length": 64, "cache": "dual", "cache.refresh_every": "8"}
    (each,) = trials_of(Eval(model="lrd-tiny", settings="llada-1.5", tasks="gsm8k", changes=changes))
    assert (float(each.config.mix.r_f), each.config.window) == (0.3, 64)
    assert each.config.commit == LowestEntropy()
    assert each.config.cache == DualCache(8)
    assert each.name == "gsm8k-paper-512-block_length=64-cache=dual-cache.refresh_every=8-r_f=0.3"
    assert from_table(json.loads(json.dumps(each.to_json()))["config"]) == each.config


def test_a_converted_checkpoint_tells_its_settings(folder, tmp_path, monkeypatch):
    info = types.SimpleNamespace(source="GSAI-ML/LLaDA-1.5")
    monkeypatch.setattr("lrd_jax.research.benchmarks.benchmarks.read_info", lambda path: info)
    monkeypatch.setattr("lrd_jax.research.benchmarks.benchmarks.is_checkpoint", lambda path: True)
    (each,) = trials_of(Eval(model=str(folder), tasks="humaneval"))
    assert (each.checkpoint, each.chat) == ("llada-1.5", True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "lrd-tiny does not tell which released checkpoint it is"),
        (("--settings", "llada-2"), "settings 'llada-2' are unknown; choose those of llada-8b-base"),
        (("--settings", "llada-1.5", "--tasks", "gsm8k,mmlu"), "task 'mmlu' is unknown; choose among humaneval, mbpp"),
        (("--settings", "llada-1.5", "--preset", "best"), "preset 'best' is unknown"),
        (("--settings", "llada-1.5", "--gen-length", "100"), "gen_length=100 must be a multiple of block_length=32"),
    ],
)
def test_the_command_refuses(capsys, args, message):
    assert main(["eval", "--model", "lrd-tiny", *args]) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and message in err


def test_arguments_are_those_of_the_preset_with_numbers_changed():
    given = {"pretrained": "x", "preset": "paper", "gen_length": 16, "block_length": 8, "r_f": 0.3, "temperature": 0.5}
    given |= {"commit": "threshold", "commit.threshold": 0.8, "cache": "dual", "cache.refresh-every": 8, "stop": "none"}
    arguments = ModelArguments.read({**given, "batch_size": "4", "device": "cpu"})
    config = arguments.config()
    got = (
        config.gen_length,
        config.window,
        float(config.mix.r_f),
        float(config.draw.temperature),
        arguments.batch_size,
    )
    assert got == (16, 8, 0.3, 0.5, 4)
    assert (config.commit, config.cache, config.stop) == (Threshold(0.8), DualCache(8), None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pretrained": "x", "blocks": 3}, "model_args blocks are unknown; there are pretrained, preset"),
        ({"pretrained": "x", "commit.treshold": 3}, "commit.treshold are unknown; did you mean commit.threshold\\?"),
        ({"preset": "lrd"}, "model_args lack pretrained="),
        ({"pretrained": "x", "batch_size": "auto"}, "batch_size='auto' must be a number"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ModelArguments.read(given)


def test_without_lm_eval_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for module in {f"lrd_jax.research.benchmarks.{name}" for name in ("run", "plugin")} & set(sys.modules):
        monkeypatch.delitem(sys.modules, module)
    assert main(["eval", "--model", "lrd-tiny", "--settings", "llada-8b-base"]) == USER_ERROR
    assert "pip install 'lrd-jax[eval]'" in capsys.readouterr().err


def test_the_library_part_needs_no_lm_eval():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('lm_eval', 'datasets', 'evaluate', 'math_verify', 'torch')))\n"
        "from lrd_jax.research.benchmarks import trials, decoding, gold, programs, progress, rating, scoring, summary"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path("/"), check=False).returncode == 0
