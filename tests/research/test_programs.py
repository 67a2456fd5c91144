"""HumanEval and MBPP: what is run for a record and a completion, and when it counts."""

import gzip
import json
from pathlib import Path

import pytest

from lrd_jax.research.sandbox import Sandbox, code_of, judge, program_for

SHARED = Path(__file__).parents[3] / "shared" / "data"

ADD = {
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
}
DOUBLE = {"test_list": ["assert double(2) == 4", "assert double(3) == 6"], "test_setup_code": "", "code": ""}


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox(unsafe=True)


@pytest.mark.parametrize(
    ("record", "completion", "passed"),
    [
        (ADD, "    return a + b\n", True),
        (ADD, "    return a + b\n```\nThat was easy.", True),
        (ADD, "Sure!\n```python\ndef add(a, b):\n    return a + b\n```", True),
        (ADD, "    return a - b\n", False),
        (ADD, "    return a +\n", False),
        (DOUBLE, "def double(x):\n    return 2 * x\n[DONE]\nassert False", True),
        (DOUBLE, "from __future__ import annotations\ndef double(x: int): return x + x", True),
        (DOUBLE, "def double(x): return 4", False),
        (DOUBLE, "def double(x):\n    return 2 * x\nif __name__ == '__main__':\n    print(double(int(input())))", True),
    ],
)
def test_a_completion_passes_if_its_tests_hold(sandbox, record, completion, passed):
    assert judge(sandbox, record, completion).passed == passed


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "'''"])
def test_leaving_before_the_tests_is_no_pass(sandbox, leave):
    assert not judge(sandbox, DOUBLE, leave).passed


def test_setup_and_imports_come_before_the_tests(sandbox):
    record = {
        "test_list": ["assert half(two) == math.cos(0)"],
        "test_imports": ["import math"],
        "test_setup_code": "two = 2",
    }
    assert judge(sandbox, record, "def half(x): return x / 2").passed


def test_every_test_counts(sandbox):
    record = {"test_list": ["assert f(1)", "assert f(1)", "assert f(1)", "assert f(0)"]}
    assert not judge(sandbox, record, "def f(x): return x").passed


def test_a_record_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="question"):
        program_for({"question": "", "answer": ""}, "1")


CODE = "def f(x):\n    return x"


@pytest.mark.parametrize(
    "reply",
    [
        CODE,
        f"{CODE}\n```",  # the prompt opened the fence
        f"{CODE}\n```\nSome words, and an example:\n```\nf(3)\n```",
        f"```python\n{CODE}\n```",
        f"```\n{CODE}\n```\nSome words.",
        f"Here it is:\n```python\n{CODE}\n```\nIt is used so:\n```python\nf(3)\n```",
        f"Here it is:\n\n```\n{CODE}\n```",
        f"Here it is:\n```py\n{CODE}",  # cut at its length
        f"{CODE}\n[DONE]\n```",
    ],
)
def test_the_code_in_a_reply(reply):
    assert code_of(reply).strip() == CODE


def records(name):
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path.name} lies in ../shared, which is not here")
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_the_answers_of_humaneval_pass(sandbox):
    """Every twentieth; benchmarks/gold_programs.py runs all."""
    for record in records("humaneval")[::20]:
        assert judge(sandbox, record, record["canonical_solution"]).passed, record["task_id"]


@pytest.mark.parametrize(("name", "tasks"), [("mbpp", {11, 367, 500, 927}), ("mbpp_sanitized", {82, 802, 803})])
def test_the_answers_of_mbpp_pass(sandbox, name, tasks):
    """Among them those that need a setup, imports, or have more than three tests."""
    for record in records(name):
        if record["task_id"] in tasks:
            assert judge(sandbox, record, record["code"]).passed, record["task_id"]
