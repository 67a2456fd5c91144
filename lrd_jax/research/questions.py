"""What an evaluation asks: questions with a checker each, by the names of their tasks.

The embedded models' tasks are here. Another kind of task joins by one function of the type `Source`, which
`source_of` hands out for its names.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from lrd_jax.errors import Refused
from lrd_jax.tasks import TASKS, check, stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Three word problems to one function, as the embedded models were trained.
TASK_SHARES = {"words": 3, "code": 1, "sudoku4": 1, "sudoku6": 1}


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
      prompt: the text that the model is given, templates and examples included.
      group: what it is counted under beside the whole, such as a task and a difficulty.
      check: whether a decoded text answers it; never raises on malformed text.
    """

    prompt: str
    group: str
    check: Callable[[str], bool]


class Source(Protocol):
    """Gives the questions of some tasks, the same for the same arguments."""

    def __call__(self, count: int, seed: int, canvas: int, tokenizer: "PreTrainedTokenizerFast") -> list[Question]: ...


def source_of(tasks: tuple[str, ...]) -> Source:
    """The source of the tasks' questions.

    Raises:
      ValueError: no task, one that is unknown, or one named twice.
    """
    if not tasks or set(tasks) - set(TASKS) or len(set(tasks)) < len(tasks):
        raise Refused(f"tasks={', '.join(tasks) or 'none'}: name one or more of {', '.join(TASKS)}, each once")
    return functools.partial(held_out, tasks)


def held_out(tasks: tuple[str, ...], count: int, seed: int, canvas: int, tokenizer) -> list[Question]:
    """`count` held-out problems of embedded tasks, all grades equally often, whose answers fit the canvas."""
    drawn, left, shares = [], count, sum(TASK_SHARES[task] for task in tasks)
    for task in tasks:
        share = TASK_SHARES[task]
        wanted = round(left * share / shares)
        left, shares = left - wanted, shares - share
        fitting = (p for p in stream(TASKS[task], "held-out", seed) if len(tokenizer(p.answer)["input_ids"]) < canvas)
        drawn += itertools.islice(fitting, wanted)
    return [Question(p.prompt, f"{p.task}/{p.grade}", functools.partial(check, p)) for p in drawn]
