"""Small Python functions: a one-line description of what to do with a list of numbers, or with one, answered in code.

    Write f(xs): keep those above 5, then double each, then return the sum.

    def f(xs):
        xs = [x for x in xs if x > 5]
        xs = [x * 2 for x in xs]
        return sum(xs)

The grade is the number of operations. An answer is right if it computes what the reference computes, on fixed inputs.
"""

import random

from lrd_jax.tasks.interpreter import Rejected, run
from lrd_jax.tasks.problem import Problem, Task

# (description, expression); k is a number from 2 to 9.
_ON_NUMBERS = (
    (("add {k}", "increase by {k}"), "x + {k}"),
    (("subtract {k}", "decrease by {k}"), "x - {k}"),
    (("multiply by {k}", "scale by {k}"), "x * {k}"),
    (("double", "take twice"), "x * 2"),
    (("square",), "x * x"),
    (("negate", "flip the sign"), "-x"),
    (("take the remainder by {k}",), "x % {k}"),
    (("divide by {k}",), "x // {k}"),
)
_ON_LISTS = (
    (("keep those above {k}", "drop those up to {k}"), "[x for x in xs if x > {k}]"),
    (("keep those below {k}", "drop those from {k}"), "[x for x in xs if x < {k}]"),
    (("keep the odd ones", "drop the even ones"), "[x for x in xs if x % 2]"),
    (("sort", "order"), "sorted(xs)"),
    (("reverse", "flip the order"), "xs[::-1]"),
    (("take the first {k}",), "xs[:{k}]"),
    (("drop the first {k}",), "xs[{k}:]"),
)
_AT_THE_END = (
    (("return the sum", "add them all"), "sum(xs)"),
    (("return the count", "count them"), "len(xs)"),
    (("return the largest",), "max(xs)"),
    (("return the smallest",), "min(xs)"),
)
_OPENINGS = ("Write {f}: {steps}.", "Define {f}: {steps}.", "Code {f}: {steps}.")

LISTS = ([], [7], [4, -3, 12, 5, 5, 8, 0, 21, -6, 9, 2], [9, 1, 6, 3, 30, 17, 10, -8], [2, 4, 6, 8, 5, 3])
NUMBERS = (-17, -4, -1, 0, 1, 2, 5, 8, 13, 40)


def _operation(rng: random.Random, variable: str, last: bool) -> tuple[str, str]:
    """A description and the expression that does it, for a number `x` or a list `xs`."""
    kinds = (_ON_NUMBERS,) if variable == "x" else (_ON_NUMBERS, _ON_LISTS, *((_AT_THE_END,) if last else ()))
    kind = rng.choice(kinds)
    phrases, expression = rng.choice(kind)
    phrase, k = rng.choice(phrases), rng.randint(2, 9)
    if kind is _ON_NUMBERS and variable == "xs":
        phrase, expression = f"{phrase} each", f"[{expression} for x in xs]"
    return phrase.format(k=k), expression.format(k=k)


def generate(rng: random.Random, grade: int) -> Problem:
    """A function of `grade` operations on one number or, twice as often, on a list."""
    variable = rng.choice(("x", "xs", "xs"))
    steps = [_operation(rng, variable, last=i == grade - 1) for i in range(grade)]
    lines = [f"def f({variable}):", *(f"{variable} = {e}" for _, e in steps[:-1]), f"return {steps[-1][1]}"]
    described = ", then ".join(phrase for phrase, _ in steps)
    prompt = rng.choice(_OPENINGS).format(f=f"f({variable})", steps=described)
    return Problem(prompt=prompt, answer="\n    ".join(lines), task="code", grade=grade)


def check(problem: Problem, text: str) -> bool:
    """Whether the text defines an `f` that agrees with the reference's on every fixed input, errors included."""
    inputs = LISTS if "f(xs)" in problem.prompt else NUMBERS
    try:
        return all(_outcome(problem.answer, value) == _outcome(text, value) for value in inputs)
    except Rejected:
        return False


def _outcome(source: str, value):
    try:
        return run(source, value)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return type(error)


CODE = Task(name="code", grades=(1, 2, 3, 4), generate=generate, check=check)
