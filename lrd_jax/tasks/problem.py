"""What a task is made of: problems with a grade, and a split that training can never cross."""

import dataclasses
import hashlib
import operator
import random
from collections.abc import Callable, Iterator

from lrd_jax.errors import Refused

HELD_OUT_SHARE = 1 / 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its reference answer.

    Attributes:
      task: name of the task that made it, a key of `lrd_jax.tasks.TASKS`.
      grade: difficulty, from 1: the number of steps that the answer takes, or a band of givens.
    """

    prompt: str
    answer: str
    task: str
    grade: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A family of problems.

    Attributes:
      grades: the difficulties that exist, ascending.
      generate: makes a problem of a grade from a random generator.
      check: whether a text answers a problem of this task correctly; never raises on malformed text.
      split_by: what of a problem decides its split; problems that share it are in the same one.
    """

    name: str
    grades: tuple[int, ...]
    generate: Callable[[random.Random, int], Problem]
    check: Callable[[Problem, str], bool]
    split_by: Callable[[Problem], str] = operator.attrgetter("prompt")


def held_out(text: str) -> bool:
    """Whether a problem belongs to the held-out split: a hash of what it is split by falls in the lowest sixteenth.

    The split is a property of the problem itself, so no seed of either split can bring one into the other.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


def stream(task: Task, split: str, seed: int, grade: int | None = None) -> Iterator[Problem]:
    """Endless problems of one split: of one grade, or with all grades equally often.

    Raises:
      ValueError: an unknown split or grade.
    """
    if split not in ("train", "held-out"):
        raise Refused(f"split {split!r} is unknown; choose 'train' or 'held-out'")
    if grade is not None and grade not in task.grades:
        raise Refused(f"task {task.name!r} has no grade {grade}; choose one of {', '.join(map(str, task.grades))}")
    rng = random.Random(f"{task.name}/{split}/{seed}/{grade}")
    while True:
        problem = task.generate(rng, rng.choice(task.grades) if grade is None else grade)
        if held_out(task.split_by(problem)) == (split == "held-out"):
            yield problem
