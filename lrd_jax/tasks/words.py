"""Word problems: a number goes through a chain of events told in plain English, and the answer writes out every step.

    Tom has 14 apples. Ann takes 5 apples. The number is doubled. How many are left?
    14 - 5 = 9 ; 9 * 2 = 18 # 18

The grade is the number of events. Numbers stay within 0..20, and what is added or taken away within 9: some three
hundred sums, each number one token, so that a small model can know them all.
"""

import random
import re

from lrd_jax.tasks.problem import Problem, Task

NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gus", "Ida", "Leo", "Mia", "Sam", "Tom")
OBJECTS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pens", "shells", "stamps", "stones")
LARGEST = 20
LARGEST_CHANGE = 9

_OPENINGS = ("{a} has {n} {o}.", "{a} owns {n} {o}.", "{a} counts {n} {o}.")
_EVENTS = {
    "+": ("{a} buys {k} {o}.", "{a} finds {k} {o}.", "{b} brings {k} {o}.", "{b} gives {a} {k}."),
    "-": ("{a} loses {k} {o}.", "{a} sells {k} {o}.", "{b} takes {k} {o}.", "{a} gives {b} {k}."),
    "*2": ("The number is doubled.",),
    "*3": ("The number is tripled.",),
    "/2": ("The number is halved.",),
}
_QUESTIONS = ("How many are left?", "How many {o} now?", "How many {o} remain?")


def draw_event(rng: random.Random, value: int) -> tuple[str, int]:
    """An operation and its operand that keep the value within 0..LARGEST."""
    allowed = ["-"] * 3 if value > 1 else []
    allowed += ["+"] * 3 if value < LARGEST else []
    allowed += ["*"] * 2 if value <= LARGEST // 2 else []
    allowed += ["/"] if value > 1 and value % 2 == 0 else []
    operation = rng.choice(allowed)
    if operation == "+":
        return operation, rng.randint(1, min(LARGEST_CHANGE, LARGEST - value))
    if operation == "-":
        return operation, rng.randint(1, min(LARGEST_CHANGE, value - 1))
    if operation == "*":
        return operation, rng.randint(2, min(3, LARGEST // value))
    return operation, 2


APPLY = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


def generate(rng: random.Random, grade: int) -> Problem:
    """A word problem of `grade` events."""
    a, b = rng.sample(NAMES, 2)
    words = {"a": a, "b": b, "o": rng.choice(OBJECTS)}
    value = rng.randint(2, LARGEST)
    prompt = [rng.choice(_OPENINGS).format(n=value, **words)]
    steps = []
    for _ in range(grade):
        operation, operand = draw_event(rng, value)
        template = rng.choice(_EVENTS.get(f"{operation}{operand}") or _EVENTS[operation])
        prompt.append(template.format(k=operand, **words))
        result = APPLY[operation](value, operand)
        steps.append(f"{value} {operation} {operand} = {result}")
        value = result
    prompt.append(rng.choice(_QUESTIONS).format(**words))
    return Problem(prompt=" ".join(prompt), answer=f"{' ; '.join(steps)} # {value}", task="words", grade=grade)


def check(problem: Problem, text: str) -> bool:
    """Whether the number after the last `#` is the reference's; the steps on the way are not judged."""
    numbers = [re.search(r"#\s*(\d+)\s*$", t) for t in (problem.answer, text)]
    return numbers[1] is not None and int(numbers[0][1]) == int(numbers[1][1])


WORDS = Task(name="words", grades=tuple(range(1, 9)), generate=generate, check=check)
