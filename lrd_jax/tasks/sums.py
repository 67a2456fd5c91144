"""Single steps of word problems by themselves, a drill for training: `9 + 5 =` is answered by `14`.

The operands stand before the result as they do in a written-out step, so that what is learned here holds there.
"""

import random

from lrd_jax.tasks.problem import Problem, Task
from lrd_jax.tasks.words import APPLY, LARGEST, draw_event


def generate(rng: random.Random, grade: int) -> Problem:
    value = rng.randint(1, LARGEST)
    operation, operand = draw_event(rng, value)
    answer = str(APPLY[operation](value, operand))
    return Problem(prompt=f"{value} {operation} {operand} =", answer=answer, task="sums", grade=grade)


def check(problem: Problem, text: str) -> bool:
    return text.strip() == problem.answer


SUMS = Task(name="sums", grades=(1,), generate=generate, check=check)
