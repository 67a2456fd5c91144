"""The prompts of a calibration, and how good an answer to one of them is."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from lrd_jax.tasks import TASKS, Problem, check
from lrd_jax.text import decode_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One prompt.

    Attributes:
      answer: the reference; None where there is none.
      task: a key of `lrd_jax.tasks.TASKS`, whose checker judges answers; None: nothing does.
    """

    prompt: str
    answer: str | None = None
    task: str | None = None


def read_examples(path: Path) -> list[Example]:
    """Reads a JSON-lines file of {"prompt": ..., "answer": ..., "task": ...}; the last two are optional, other fields
    are passed over.

    Raises:
      ValueError: no prompts, broken lines, or tasks on some lines only; every line is named in one message.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise ValueError(f'{path}: no such file; give JSON lines such as {{"prompt": "..."}}') from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from None
    examples, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                examples.append(_example(line))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems[:10]) + (" ..." if len(problems) > 10 else ""))
    if not examples:
        raise ValueError(f'{path} holds no prompts; give JSON lines such as {{"prompt": "..."}}')
    checked = sum(example.task is not None for example in examples)
    if 0 < checked < len(examples):
        raise ValueError(f"{path}: {checked} of {len(examples)} lines have a task; give all of them one, or none")
    return examples


def _example(line: str) -> Example:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"an object was wanted, got {line.strip()[:40]!r}")
    fields = {field.name: record.get(field.name) for field in dataclasses.fields(Example)}
    if wrong := [name for name, value in fields.items() if not isinstance(value, str | None)]:
        raise ValueError(f"{', '.join(wrong)} must be text")
    if not (fields["prompt"] or "").strip():
        raise ValueError("prompt is missing or empty")
    if fields["task"] is not None and fields["task"] not in TASKS:
        raise ValueError(f"task {fields['task']!r} is unknown; choose among {', '.join(TASKS)}")
    if fields["task"] is not None and fields["answer"] is None:
        raise ValueError("a line with a task needs its answer too")
    return Example(**fields)


class Judge:
    """Texts of decoded tokens, and whether they are right; each distinct one is looked at once."""

    def __init__(self, tokenizer, model_config, examples: list[Example]):
        self._tokenizer, self._model_config, self._examples = tokenizer, model_config, examples
        self._texts: dict[bytes, str] = {}
        self._right: dict[tuple[int, str], bool] = {}

    @property
    def checks(self) -> bool:
        """Whether answers can be checked."""
        return self._examples[0].task is not None

    def text(self, tokens: np.ndarray) -> str:
        """The text of tokens `[G]`, cut at the first end token."""
        key = tokens.tobytes()
        if key not in self._texts:
            self._texts[key] = decode_text(self._tokenizer, tokens[None], self._model_config)[0]
        return self._texts[key]

    def right(self, row: int, text: str) -> bool:
        """Whether the text answers prompt `row`, where answers can be checked."""
        if (row, text) not in self._right:
            example = self._examples[row]
            problem = Problem(prompt=example.prompt, answer=example.answer, task=example.task, grade=1)
            self._right[row, text] = check(problem, text)
        return self._right[row, text]
