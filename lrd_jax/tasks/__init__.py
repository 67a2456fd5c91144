"""Tasks with exact checkers, grades of difficulty and a held-out split, for small models."""

import itertools

from lrd_jax.errors import Refused
from lrd_jax.tasks.code import CODE
from lrd_jax.tasks.problem import Problem as Problem
from lrd_jax.tasks.problem import Task as Task
from lrd_jax.tasks.problem import stream as stream
from lrd_jax.tasks.sudoku import SUDOKU_4, SUDOKU_6
from lrd_jax.tasks.sums import SUMS
from lrd_jax.tasks.words import WORDS

TASKS: dict[str, Task] = {task.name: task for task in (WORDS, CODE, SUDOKU_4, SUDOKU_6)}
EMBEDDED = (WORDS.name, CODE.name)  # what the embedded models were trained on
TRAINABLE: dict[str, Task] = {**TASKS, SUMS.name: SUMS}  # with the drills, which nothing is measured on


def problems(task: str, split: str, seed: int, count: int, grade: int | None = None) -> list[Problem]:
    """`count` problems of a task, the same for the same arguments.

    Args:
      task: a key of `TASKS`.
      split: "train" or "held-out"; no problem is ever in both.
      grade: one difficulty, or None for all of them equally often.

    Raises:
      ValueError: an unknown task, split or grade.
    """
    return list(itertools.islice(stream(_task(task), split, seed, grade), count))


def examples() -> list[str]:
    """A question of each task that the embedded models were trained on."""
    return [problems(task, "held-out", seed=0, count=1, grade=2)[0].prompt for task in EMBEDDED]


def check(problem: Problem, text: str) -> bool:
    """Whether a decoded answer is right; malformed text is simply wrong."""
    return _task(problem.task).check(problem, text)


def _task(name: str) -> Task:
    if name not in TASKS:
        raise Refused(f"task {name!r} is unknown; choose one of {', '.join(map(repr, TASKS))}")
    return TASKS[name]
