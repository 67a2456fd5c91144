"""The tasks: generators, checkers, the held-out split, the interpreter and the tokenizer."""

import itertools
import random

import pytest

from lrd_jax.tasks import TASKS, TRAINABLE, check, problems, stream
from lrd_jax.tasks.interpreter import Rejected, run
from lrd_jax.tasks.problem import Problem, held_out
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.tasks.words import LARGEST


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(tuple(TASKS.values()))


def every_grade(count):
    return [p for task in TASKS.values() for g in task.grades for p in problems(task.name, "held-out", 3, count, g)]


def words(answer):
    return Problem(
        prompt="Tom has 54 apples. Ann takes 13 apples. How many are left?", answer=answer, task="words", grade=1
    )


def code(answer, prompt="Write f(xs): double each."):
    return Problem(prompt=prompt, answer=answer, task="code", grade=1)


def test_reference_answers_are_right():
    assert all(check(problem, problem.answer) for problem in every_grade(40))


def test_the_same_arguments_give_the_same_problems():
    assert problems("words", "train", 5, 20) == problems("words", "train", 5, 20)


def test_another_seed_gives_other_problems():
    assert problems("code", "train", 5, 20) != problems("code", "train", 6, 20)


@pytest.mark.parametrize("task", TASKS)
def test_no_problem_is_in_both_splits(task):
    train = {p.prompt for p in problems(task, "train", 0, 2000)}
    assert not train & {p.prompt for p in problems(task, "held-out", 0, 500)}


def test_about_a_sixteenth_is_held_out():
    rng = random.Random(0)
    share = sum(held_out(TASKS["words"].generate(rng, 3).prompt) for _ in range(4000)) / 4000
    assert 0.05 < share < 0.075


def test_word_problems_stay_in_range_and_state_true_steps():
    for problem in problems("words", "train", 1, 300):
        steps, result = problem.answer.split(" # ")
        value = None
        for step in steps.split(" ; "):
            left, right = step.split(" = ")
            assert value is None or left.startswith(f"{value} ")
            value = int(right)
            assert eval(left.replace("/", "//")) == value and 0 <= value <= LARGEST
        assert int(result) == value and len(steps.split(" ; ")) == problem.grade


@pytest.mark.parametrize("text", ["", "54 - 13 = 41", "54 - 13 = 41 # 42", "41 #", "# 41 # 40", "# 41 apples", "# -41"])
def test_wrong_word_answers_are_rejected(text):
    assert not check(words("54 - 13 = 41 # 41"), text)


@pytest.mark.parametrize("text", ["54 - 13 = 41 # 41", "# 41", "54 - 13 = 41 #41 "])
def test_a_word_answer_is_its_last_number(text):
    assert check(words("54 - 13 = 41 # 41"), text)


def test_sums_are_single_steps():
    for problem in itertools.islice(stream(TRAINABLE["sums"], "train", 0), 300):
        assert eval(problem.prompt.rstrip("= ").replace("/", "//")) == int(problem.answer) <= LARGEST


REFERENCE = "def f(xs):\n    return [x * 2 for x in xs]"


@pytest.mark.parametrize(
    "text",
    [
        "def f(xs): return [x + x for x in xs]",
        "def f(a):\n    b = [2 * y for y in a]\n    return b",
    ],
)
def test_other_code_with_the_same_results_is_right(text):
    assert check(code(REFERENCE), text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def f(xs):\n    return [x * 3 for x in xs]",
        "def f(xs):\n    return xs",
        "def f(xs):\n    [x * 2 for x in xs]",
        "def g(xs):\n    return [x * 2 for x in xs]",
        "def f(xs):\n  return [x * 2 for x in xs",
        "def f(xs):\n    return [y * 2 for x in xs]",
        "def f(xs, ys):\n    return [x * 2 for x in xs]",
        "import os\ndef f(xs):\n    return [x * 2 for x in xs]",
    ],
)
def test_wrong_code_is_rejected(text):
    assert not check(code(REFERENCE), text)


def test_an_error_counts_as_a_result():
    largest = code("def f(xs):\n    return max(xs)")
    assert check(largest, "def f(xs):\n    return max([x for x in xs])")
    assert not check(largest, "def f(xs):\n    return sum(xs)")


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return x.__class__",
        "def f(x):\n    return open(x)",
        "def f(x):\n    return f(x)",
        "def f(x):\n    while 1: x = x",
        "def f(x):\n    return (lambda: x)()",
        "def f(x):\n    return 9 ** 9 ** 9",
        "def f(x):\n    return x" + " + 1" * 1000,
        "def f(x):\n    return " + "(" * 500 + "x" + ")" * 500,
        "def f(x):\n    return x\0",
    ],
)
def test_the_interpreter_refuses_what_it_does_not_know(source):
    with pytest.raises(Rejected):
        run(source, 3)


def test_the_interpreter_does_not_multiply_lists():
    with pytest.raises(TypeError):
        run("def f(xs):\n    return xs * 99", [1])


@pytest.mark.parametrize(
    ("body", "argument"),
    [
        ("    x = x * x\n" * 100 + "    return x", 40),
        ("    return " + "[" * 40 + "1" + " for y in x]" * 40, [0] * 11),
        ("    return [" + "sum([" * 40 + "1" + " for y in x])" * 40 + " for y in x]", [0] * 11),
    ],
)
def test_the_interpreter_rejects_endless_work(body, argument):
    with pytest.raises(Rejected):
        run("def f(x):\n" + body, argument)


def test_the_interpreter_leaves_its_argument_alone():
    xs = [3, 1]
    assert run("def f(xs):\n    return sorted(xs)", xs) == [1, 3] and xs == [3, 1]


def test_text_survives_the_tokenizer(tokenizer):
    for problem in every_grade(40):
        assert tokenizer.decode(tokenizer(problem.answer)["input_ids"]) == problem.answer
        assert tokenizer.unk_token_id not in tokenizer(problem.prompt)["input_ids"]


def test_answers_fit_a_canvas_of_64_and_the_longest_nearly_fill_it(tokenizer):
    lengths = [len(tokenizer(p.answer)["input_ids"]) for p in every_grade(200)]
    assert min(lengths) == 7 and 56 <= max(lengths) <= 64


def test_strange_words_become_unknown(tokenizer):
    assert tokenizer("Zed has 123 apples")["input_ids"].count(tokenizer.unk_token_id) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sums", "train", 0, 1), "task 'sums' is unknown; choose one of 'words', 'code'"),
        (("words", "test", 0, 1), "split 'test' is unknown"),
        (("code", "train", 0, 1, 9), "task 'code' has no grade 9; choose one of 1, 2, 3, 4"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        problems(*arguments)
