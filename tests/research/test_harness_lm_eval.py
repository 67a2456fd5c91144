"""Evaluations through lm-eval, where it is installed: prompts, the plug-in, the command, and gold answers."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from byte_model import write_byte_model

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lrd-jax[eval]'")
pytestmark = pytest.mark.filterwarnings("default")  # lm-eval's and its libraries' own

import math_verify  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from math_verify.errors import TimeoutException  # noqa: E402

from lrd_jax.checkpoint import load  # noqa: E402
from lrd_jax.cli import USER_ERROR, main  # noqa: E402
from lrd_jax.models.checkpoints import CHECKPOINTS  # noqa: E402
from lrd_jax.research.benchmarks import tasks  # noqa: E402
from lrd_jax.research.benchmarks.benchmarks import BASE, INSTRUCT, prompting  # noqa: E402
from lrd_jax.research.benchmarks.code_eval import SandboxedCodeEval, use_sandbox  # noqa: E402
from lrd_jax.research.benchmarks.gold import gold_output  # noqa: E402
from lrd_jax.research.benchmarks.plugin import LRDModel  # noqa: E402
from lrd_jax.research.benchmarks.programs import Programs  # noqa: E402
from lrd_jax.research.benchmarks.questions import BenchmarkQuestions  # noqa: E402
from lrd_jax.research.benchmarks.records import read_records  # noqa: E402
from lrd_jax.research.benchmarks.scoring import grade  # noqa: E402
from lrd_jax.research.cells import cells_in  # noqa: E402

MATRIX = r"$\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}$."  # lm-eval loses the rows of the answer beside it
ROWS = {
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def two():\n",
        "canonical_solution": "    return 2\n",
        "test": "def check(candidate):\n    assert candidate() == 2\n",
        "entry_point": "two",
    },
    "mbpp_test": {
        "task_id": 11,
        "text": "Write a function that returns two.",
        "code": "def two():\n    return 2",
        "test_list": ["assert two() == 2", "assert two() > 1", "assert two() < 3"],
        "test_setup_code": "",
    },
    "gsm8k_test": {"question": "What is 1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
    "math500": {"problem": "What is $1 + 1$?", "solution": "It is " + MATRIX},
}
COUNT = 6


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, row in ROWS.items():
        rows = [
            {k: f"{v} " * i + v if k in ("question", "problem") else v for k, v in row.items()} for i in range(COUNT)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return str(write_byte_model(tmp_path_factory.mktemp("chat"), chat=True))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    use_sandbox(lambda program, tests: False)


def prompts_of(asked, data, tmp_path, *, chat=None):
    _, loaded = tasks.load_task(tasks.write_task(tmp_path, asked, data))
    (task,) = loaded["tasks"].values()
    task.build_all_requests(
        limit=2, apply_chat_template=chat is not None, chat_template=chat, fewshot_as_multiturn=True
    )
    return [instance.args[0] for instance in task.instances], task


# Prompts, shots and stop strings, as lm-eval's task files have them.


@pytest.mark.parametrize(
    ("benchmark", "begin", "example", "end"),
    [
        ("humaneval", "def two():", "def two():", "def two():"),
        ("mbpp", "You are an expert Python programmer", "[DONE]", "[BEGIN]"),
        ("gsm8k", "Q: There are 15 trees", "The answer is", "Q: What is 1 + 1?\nA:"),
        ("math500", "Problem:\nFind the domain", "The final answer is", "Problem:\nWhat is $1 + 1$?\n\nSolution:"),
    ],
)
def test_base_checkpoints_see_solved_examples(data, tmp_path, benchmark, begin, example, end):
    (first, _), _ = prompts_of(BASE[benchmark], data, tmp_path)
    assert first.startswith(begin)
    assert first.rstrip().endswith(end)
    assert first.count(example) == max(1, BASE[benchmark].shots)


@pytest.mark.parametrize("benchmark", INSTRUCT)
def test_tuned_checkpoints_see_the_problem_alone(data, tmp_path, folder, benchmark):
    model = LRDModel.create_from_arg_obj({"pretrained": folder, "gen_length": 8})
    (first, _), _ = prompts_of(INSTRUCT[benchmark], data, tmp_path, chat=model.apply_chat_template)
    assert first.startswith("<|startoftext|><|start_header_id|>user<|end_header_id|>")
    assert first.count("<|start_header_id|>user") == 1
    opened = benchmark in ("humaneval", "mbpp")  # the answer begins inside a code block
    reply = first.split("<|start_header_id|>assistant<|end_header_id|>\n\n")[1]
    assert ("```python" in reply) is opened
    assert reply == "" or not reply.endswith("<|eot_id|>")


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("benchmark", BASE)
def test_every_papers_run_is_a_task_of_lm_eval_with_its_shots(data, tmp_path, checkpoint, benchmark):
    asked = prompting(checkpoint, benchmark)
    path = tasks.write_task(tmp_path, asked, None)
    config = json.loads(path.read_text())
    theirs = tasks.lm_eval.tasks._yaml_loader.load_yaml(config["include"], resolve_func=False)
    assert theirs["task"] == config["task"] == asked.task
    assert theirs["output_type"] == "generate_until"
    assert theirs.get("unsafe_code", False) is asked.runs_code
    samples = theirs.get("fewshot_config", {}).get("samples")
    assert not isinstance(samples, list) or len(samples) >= asked.shots


# The plug-in.


def instance(prompt, until, index=0, **options):
    arguments = (prompt, {"until": until, "do_sample": False, **options})
    return Instance("generate_until", {}, arguments, 0, ("task", index, 1))


def test_lm_eval_knows_the_model_by_its_name():
    assert get_model("lrd-jax") is LRDModel


def test_generation_ratings_and_records(folder, tmp_path):
    given = {"pretrained": folder, "preset": "plain", "gen_length": 8, "samples": 4, "records": str(tmp_path / "r")}
    model = LRDModel.create_from_arg_obj(given, {"batch_size": 2})
    outputs = model.generate_until([instance("One.", ["zz"]), instance("Two.", ["zz"], 1)])
    assert [record.output for record in model.answered] == outputs
    written = [json.loads(line) for line in (tmp_path / "r" / "records.jsonl").read_text().splitlines()]
    assert {row["output"] for row in written} == set(outputs)
    assert all(row["correct"] is None for row in written)

    pairs = [("Yes or", " no"), ("Yes or", " yes"), ("", "no")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    rated = model.loglikelihood(requests)
    assert [type(value) for pair in rated for value in pair] == [float, bool] * 3
    assert all(value < 0 for value, _ in rated)
    assert rated[:1] == model.loglikelihood(requests[:1])
    (rolling,) = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("no",), 0)])
    assert rolling == rated[2][0]


def test_a_task_that_draws_at_another_temperature_is_refused(folder):
    model = LRDModel.create_from_arg_obj({"pretrained": folder, "gen_length": 8})
    with pytest.raises(ValueError, match=r"draws at temperature 0\.2, the decoder at 0\.0: add temperature=0\.2"):
        model.generate_until([instance("One.", [], do_sample=True, temperature=0.2)])


def test_code_is_never_run_by_lm_evals_own_metric():
    ran = []
    use_sandbox(lambda *texts: bool(ran.append(texts)) or "return 2" in texts[0])
    from evaluate import load

    metric = load("code_eval")
    assert isinstance(metric, SandboxedCodeEval)
    right, wrong = "def two():\n    return 2\n", "def two():\n    return 1\n"
    result, passed = metric.compute(references=["assert two() == 2"], predictions=[[right, wrong]], k=[1, 2, 3])
    assert result == {"pass@1": 0.5, "pass@2": 1.0}
    assert passed == [[True, False]]
    assert ran == [(code, "assert two() == 2") for code in (right, wrong)]


@pytest.mark.parametrize("late", ["parse", "verify"])
def test_mathematics_that_takes_too_long_is_wrong_and_says_so(monkeypatch, late):
    def hidden(*args, raise_on_error=False, **options):
        if (late == "parse" and args[0] == solution) or late == "verify":
            raise TimeoutException
        return original(*args, raise_on_error=raise_on_error, **options)

    solution, answer = "It is $\\boxed{3}$.", "$x + 3$"
    original = getattr(math_verify, late)
    monkeypatch.setattr(math_verify, late, hidden)
    found = grade("math500", {"solution": solution}, answer, None)
    assert found.correct is False and found.verdict.startswith("timed out: ")


def test_equal_mathematics_is_right_whatever_else_was_given_up(monkeypatch):
    def once(*args, **options):
        if not asked:
            asked.append(args)
            raise TimeoutException
        return original(*args, **options)

    asked, original = [], math_verify.verify
    monkeypatch.setattr(math_verify, "verify", once)
    assert grade("math500", {"solution": r"$\boxed{3}$"}, r"$\boxed{3}$", None).correct and asked


@pytest.mark.parametrize(("solution", "answer"), [("", "3"), ("no box", "3"), (r"$\boxed{3}$", ""), ("", "")])
def test_mathematics_with_nothing_to_compare_is_wrong(solution, answer):
    assert grade("math500", {"solution": solution}, answer, None).correct is False


# The command.


def test_gold_answers_reach_the_ceiling(data, tmp_path, capsys, sandboxed):
    args = ("eval", "--model", "gold", "--settings", "llada-8b-base", "--data", str(data), "--output", str(tmp_path))
    assert main(args) == 0
    out = capsys.readouterr().out
    assert out.count(f"| {COUNT} | 100.0") == 4
    scores = {
        file.parent.name.split("-")[0]: json.loads(file.read_text()) for file in tmp_path.glob("gold/*/summary.json")
    }
    assert {name: (each["right"], each["samples"]) for name, each in scores.items()} == dict.fromkeys(
        BASE, (COUNT, COUNT)
    )
    assert scores["gsm8k"]["lm_eval"] == {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 1.0}
    assert scores["math500"]["lm_eval"] == {"exact_match": 0.0, "math_verify": 1.0}
    assert scores["humaneval"]["lm_eval"] == {"pass@1,create_test": 1.0}
    assert scores["mbpp"]["lm_eval"] == {"pass_at_1": 1.0}


@pytest.fixture
def sandboxed():
    from lrd_jax.research.sandbox import available

    if not available():
        pytest.skip("there is no sandbox here to run programs in: bubblewrap is absent or does not work")


def evaluate(folder, data, output, *more):
    args = (
        "--tasks",
        "gsm8k",
        "--settings",
        "llada-8b-instruct",
        "--gen-length",
        "8",
        "--preset",
        "plain",
        "--batch",
        "2",
    )
    return ["eval", "--model", folder, *args, "--data", str(data), "--output", str(output), *more]


def test_a_killed_command_goes_on_to_the_records_of_an_unbroken_one(folder, data, tmp_path, capsys):
    broken = evaluate(folder, data, tmp_path / "broken")
    path = tmp_path / "broken" / "model" / "gsm8k-plain-8" / "records.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from lrd_jax.cli import main; main(sys.argv[1:])", *broken]
    )
    give_up = time.monotonic() + 600
    while not (path.exists() and path.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = read_records(path)
    assert main(broken) == 0
    assert main(evaluate(folder, data, tmp_path / "whole")) == 0
    resumed, whole = read_records(path), read_records(tmp_path / "whole" / "model" / "gsm8k-plain-8" / "records.jsonl")
    assert resumed[: len(before)] == before
    assert [dataclasses.replace(r, seconds=0.0) for r in resumed] == [
        dataclasses.replace(r, seconds=0.0) for r in whole
    ]
    assert len(resumed) == COUNT
    assert "gsm8k-plain-8" in capsys.readouterr().out


def test_libraries_make_no_noise(folder, data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)  # of no repository
    assert main(evaluate(folder, data, tmp_path, "--limit", "1")) == 0
    assert "git repository" not in capfd.readouterr().err


def test_other_settings_in_the_same_folder_are_refused(folder, data, tmp_path, capsys):
    assert main(evaluate(folder, data, tmp_path, "--limit", "2")) == 0
    capsys.readouterr()
    assert main(evaluate(folder, data, tmp_path, "--limit", "2", "--seed", "1")) == USER_ERROR
    assert "holds a run with seed=0; asked was seed=1: choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "gsm8k_test.jsonl").unlink(), "has neither gsm8k_test.jsonl nor gsm8k_test.jsonl.gz"),
        (lambda folder: (folder / "gsm8k_test.jsonl").write_text('{"question": "?"}\n'), "lacks the columns answer"),
        (lambda folder: (folder / "gsm8k_test.jsonl").write_text("no json\n"), "is no file of JSON lines"),
    ],
)
def test_unusable_data_is_named(folder, data, tmp_path, capsys, break_it, words):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gsm8k_test.jsonl").write_text((data / "gsm8k_test.jsonl").read_text())
    break_it(tmp_path / "data")
    assert main(evaluate(folder, tmp_path / "data", tmp_path / "out")) == USER_ERROR
    assert words in capsys.readouterr().err


def test_without_a_sandbox_code_tasks_are_refused_before_anything_is_decoded(
    folder, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    args = ("eval", "--model", folder, "--settings", "llada-8b-base", "--tasks", "humaneval", "--data", str(data))
    assert main([*args, "--output", str(tmp_path / "out")]) == USER_ERROR
    err = capsys.readouterr().err
    assert "--unsafe-code" in err
    assert not (tmp_path / "out").exists()


# The benchmarks as questions of `lrd-jax reproduce`.


@pytest.mark.parametrize("checkpoint", ["llada-8b-base", "llada-8b-instruct"])
@pytest.mark.parametrize("benchmark", BASE)
def test_a_question_is_what_lm_eval_asks_and_its_gold_answer_is_right(
    data, folder, tmp_path, sandboxed, benchmark, checkpoint
):
    tokenizer = load(folder).tokenizer
    asked = prompting(checkpoint, benchmark)
    chat = functools.partial(tasks.chat_text, tokenizer) if checkpoint.endswith("instruct") else None
    prompts, task = prompts_of(asked, data, tmp_path, chat=chat)
    source = BenchmarkQuestions((benchmark,), checkpoint, data, Programs() if asked.runs_code else None)
    questions = source(2, 1, 8, tokenizer)
    assert [question.prompt for question in questions] == prompts
    gold = gold_output(asked.task, task.instances[0].doc)
    assert questions[0].check(gold)
    assert not questions[0].check("")


def test_reproduce_asks_the_benchmarks(folder, data, tmp_path, capsys):
    args = (
        "--settings",
        "llada-8b-instruct",
        "--data",
        str(data),
        "--tasks",
        "gsm8k,math500",
        "--only",
        "threshold 0.9",
    )
    numbers = ("--canvases", "8", "--counts", "3", "--replayed", "2", "--batch", "9", "--what", "table1")
    assert main(["reproduce", "--model", folder, "--output", str(tmp_path), *args, *numbers]) == 0
    (cell,) = cells_in(tmp_path / "cells.jsonl").read().held.values()
    assert cell["tasks"] == ["gsm8k", "math500"]
    assert {name: asked for name, (_, asked) in cell["grades"].items()} == {"gsm8k": 2, "math500": 1}
    assert "| threshold 0.9 |" in (tmp_path / "report.md").read_text()
    capsys.readouterr()
    assert (
        main(["reproduce", "--model", folder, "--output", str(tmp_path), *args, *numbers[:3], "99", *numbers[4:]])
        == USER_ERROR
    )
    assert "gsm8k has 6 problems, 50 were asked for" in capsys.readouterr().err
