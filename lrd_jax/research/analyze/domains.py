"""Where prompts come from: the embedded models' tasks, longer problems than those, or files of one's own."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from lrd_jax.errors import Refused
from lrd_jax.research.prompts import read_examples
from lrd_jax.tasks import EMBEDDED, TASKS, Problem, Task, check, stream

# Longer than training ever saw, and still within a canvas of 64.
LONGER_GRADES = {"words": (9, 10), "code": (5, 6)}

_TRIES = 50  # drawn for each problem wanted, before a domain is said not to fit the canvas


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """Prompts of one kind.

    Attributes:
      trained: whether the embedded models were trained on this kind; None where that is not known.
      problems: what checks the answers, one a prompt; None where nothing does.
    """

    name: str
    trained: bool | None
    prompts: list[str]
    problems: list[Problem] | None

    def right(self, row: int, text: str) -> bool:
        """Whether a text answers the prompt of a row."""
        return check(self.problems[row], text)


def task_domains(count: int, seed: int, gen_length: int, tokenizer) -> list[Domain]:
    """The embedded models' tasks, then longer problems: `count` held-out ones each, whose answers fit the canvas.

    Raises:
      ValueError: no answer of a domain fits.
    """
    domains = []
    for longer in (False, True):
        for name in EMBEDDED:
            task = TASKS[name]
            grades = LONGER_GRADES[name] if longer else task.grades
            drawn = list(_fitting(dataclasses.replace(task, grades=grades), count, seed, gen_length, tokenizer))
            if len(drawn) < count:
                raise Refused(
                    f"too few problems of {name} with {grades[0]} to {grades[-1]} steps have answers shorter than "
                    f"gen_length={gen_length}; raise it, to 64 for the embedded models"
                )
            title = f"{name}, {grades[0]}-{grades[-1]} steps"
            prompts = [problem.prompt for problem in drawn]
            domains.append(Domain(name=title, trained=not longer, prompts=prompts, problems=drawn))
    return domains


def _fitting(task: Task, count: int, seed: int, gen_length: int, tokenizer) -> Iterator[Problem]:
    some = itertools.islice(stream(task, "held-out", seed), _TRIES * count)
    fits = (problem for problem in some if len(tokenizer(problem.answer)["input_ids"]) < gen_length)
    return itertools.islice(fits, count)


def file_domains(files: tuple[Path, ...], count: int) -> list[Domain]:
    """A domain a file, at most `count` prompts of each; answers are checked where its lines have a task.

    Raises:
      ValueError: see `lrd_jax.research.prompts.read_examples`.
    """
    domains = []
    for file in files:
        examples = read_examples(file)[:count]
        problems = [example.problem for example in examples] if examples[0].task else None
        prompts = [example.prompt for example in examples]
        domains.append(Domain(name=str(file), trained=None, prompts=prompts, problems=problems))
    return domains
