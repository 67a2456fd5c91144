"""HumanEval and MBPP: what is run for a record and a completion, and when it counts."""

import gzip
import json
from pathlib import Path

import pytest

from lrd_jax.research.sandbox import Exam, Limits, Sandbox, Status, code_of, exam_for, judge

pytestmark = pytest.mark.slow

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
        exam_for({"question": "", "answer": ""}, "1")


def test_tests_that_are_no_python_are_an_error():
    with pytest.raises(ValueError, match="no Python"):
        exam_for({"test_list": ["assert f(1"]}, "f = id")


@pytest.mark.parametrize(
    ("tests", "asked", "modules"),
    [
        ("assert f(1) == 1", ["f"], []),
        ("assert set(f([1])) == set((1,))", ["f"], []),
        ("assert sum(10, 15) == 6", ["sum"], []),
        ("import math\nassert math.isclose(f(1), 1)", ["f"], []),
        ("assert f((1,)) == sys.getsizeof((1,))", ["f"], ["sys"]),
        ("assert longest([Pair(5, 24)], 4) == 3", ["Pair", "longest"], []),
        ("root = Node(1)\nroot.left = Node(2)\nassert depth(root)", ["Node", "depth"], []),
        ("assert limit == 3", ["limit"], []),
        ("for x in range(3):\n    assert f(x) == x", ["f"], []),
    ],
)
def test_what_is_the_programs_in_the_tests(tests, asked, modules):
    exam = Exam(program="", tests=tests)
    assert (exam.asked(), exam.modules()) == (asked, modules)


def test_what_a_prompt_defines_is_not_the_programs():
    prompt = 'import math\n\ndef helper(x):\n    return x\n\ndef f(x):\n    """Text."""\n'
    record = {"prompt": prompt, "entry_point": "f", "test": "def check(candidate):\n    assert helper(f(1)) == 1"}
    exam = exam_for(record, "    return x\n")
    assert exam == Exam.of_texts(exam.program, exam.tests)
    assert exam.asked() == ["f"] and "helper" in exam.given and "def f" not in exam.given


VALUES = [
    *("None", "True", "0", "-3", "2**53", "-(10**5000)", "1.5", "float('inf')", "-0.0", "1j", "'ü'", r"'\ud800'"),
    *(r"b'\x00'", "bytearray(b'x')", "[]", "[1, [2.0, 'x']]", "(1, (2,))", "{1: {'a': (2,)}, (1, 2): []}", "{1, 2}"),
    *("frozenset({1})", "range(1, 9, 2)", "int", "__import__('decimal').Decimal('1.10')"),
    "__import__('fractions').Fraction(1, 3)",
]


@pytest.mark.parametrize("back", [True, False])
def test_values_of_plain_types_cross_as_they_are(sandbox, back):
    """As answers and as arguments: of the same type, and equal."""
    alike = "type(v) is type(w) and v == w and str(v)[:9] == str(w)[:9]" if back else "holds(w, i)"
    tests = f"import sys\nsys.set_int_max_str_digits(0)\nfor i, w in enumerate([{', '.join(VALUES)}]):\n"
    tests += f"    v = same(w)\n    assert {alike}, i"
    program = f"import sys\nsys.set_int_max_str_digits(0)\nvalues = [{', '.join(VALUES)}]\ndef same(x): return x\n"
    program += "def holds(w, i): return type(w) is type(values[i]) and w == values[i]"
    verdict = judge(sandbox, {"test_list": [tests]}, program)
    assert verdict.passed, verdict.outcome.output


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("from collections import Counter as f", "f('aab') == {'a': 2, 'b': 1}"),
        ("from collections import namedtuple\nf = namedtuple('P', 'x y')", "f(1, 2) == (1, 2)"),
        ("import enum\nclass E(enum.IntEnum):\n    A = 3\ndef f(): return E.A", "f() == 3"),
        ("def f(): yield from (1, 2)", "list(f()) == [1, 2]"),
        ("def f():\n    i = 0\n    while True:\n        yield i\n        i += 1", "next(f()) == 0"),
        ("import re\ndef f(x): return re.match('a', x)", "f('ab') and not f('b')"),
        ("class f:\n    x = 3\n    def __init__(self, y): self.y = y", "f(4).x + f(4).y == 7"),
        ("class C: pass\nc = C()\ndef f(): return c", "f() is f() and f() == f()"),
        ("def f(x):\n    x.append(1)\n    return x", "f([0]) == [0, 1]"),
        ("def f(x, *, key): return x[key]", "f({'a': 1}, key='a') == 1"),
    ],
)
def test_what_crosses_of_other_objects(sandbox, program, test):
    verdict = judge(sandbox, {"test_list": [f"assert {test}"]}, program)
    assert verdict.passed, verdict.outcome.output


@pytest.mark.parametrize("error", ["ValueError('x')", "KeyError(1)", "UnicodeDecodeError('x', b'', 0, 1, '')"])
def test_an_exception_of_the_program_is_the_tests(sandbox, error):
    program = f"def f(): raise {error}"
    outcome = judge(sandbox, {"test_list": ["assert f() == 1"]}, program).outcome
    assert outcome.exit_code == 1 and error.partition("(")[0] in outcome.output.splitlines()[-1]
    kind = "RuntimeError" if "Unicode" in error else error.partition("(")[0]
    assert judge(sandbox, {"test_list": [f"try:\n    f()\n    assert 0\nexcept {kind}:\n    pass"]}, program).passed


def test_a_function_of_the_tests_does_not_cross(sandbox):
    outcome = judge(sandbox, {"test_list": ["assert f(lambda x: x) == 1"]}, "def f(g): return g(1)").outcome
    assert "cannot give the program a value of type function" in outcome.output


def test_arguments_stay_as_they_were(sandbox):
    record = {"test_list": ["x = [2, 1]\nassert f(x) == [1, 2] and x == [2, 1]"]}
    assert judge(sandbox, record, "def f(x):\n    x.sort()\n    return x").passed


def test_a_limit_that_the_program_meets_is_told():
    sandbox = Sandbox(Limits(cpu_seconds=1), unsafe=True)
    assert judge(sandbox, DOUBLE, "def double(x):\n    while True: pass").outcome.status is Status.CPU_TIME
    flood = judge(sandbox, DOUBLE, "def double(x):\n    while True: print('x' * 10_000)")
    assert flood.outcome.status is Status.OUTPUT and not flood.passed


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
