"""Files of prompts: JSON lines such as {"prompt": "Why is the sky blue?"}, some with answers that can be checked."""

import dataclasses
import json
from pathlib import Path

from lrd_jax.errors import Refused
from lrd_jax.files import require_file_or_pipe
from lrd_jax.tasks import TASKS, Problem


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

    @property
    def problem(self) -> Problem | None:
        """What checks an answer, where anything does; its grade is not known."""
        if self.task is None:
            return None
        return Problem(prompt=self.prompt, answer=self.answer, task=self.task, grade=1)


def read_examples(path: Path) -> list[Example]:
    """Reads a JSON-lines file of {"prompt": ..., "answer": ..., "task": ...}; the last two are optional, other fields
    are passed over.

    Raises:
      ValueError: no file, no prompts, broken lines, or tasks on some lines only; every line is named in one message.
    """
    require_file_or_pipe(path, "a file of JSON lines was wanted")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise Refused(f'{path}: no such file; give JSON lines such as {{"prompt": "..."}}') from None
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 at byte {error.start}: write it in UTF-8") from None
    lines = content.split("\n")  # a text may hold any other line break that Unicode has
    examples, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                examples.append(_example(line))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
    if problems:
        raise Refused(f"{path}: " + "; ".join(problems[:10]) + (" ..." if len(problems) > 10 else ""))
    if not examples:
        raise Refused(f'{path} holds no prompts; give JSON lines such as {{"prompt": "..."}}')
    checked = sum(example.task is not None for example in examples)
    if 0 < checked < len(examples):
        raise Refused(f"{path}: {checked} of {len(examples)} lines have a task; give all of them one, or none")
    return examples


def _example(line: str) -> Example:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise Refused(f"an object was wanted, got {line.strip()[:40]!r}")
    fields = {field.name: record.get(field.name) for field in dataclasses.fields(Example)}
    if wrong := [name for name, value in fields.items() if not isinstance(value, str | None)]:
        raise Refused(f"{', '.join(wrong)} must be text")
    if not (fields["prompt"] or "").strip():
        raise Refused("prompt is missing or empty")
    if fields["task"] is not None and fields["task"] not in TASKS:
        raise Refused(f"task {fields['task']!r} is unknown; choose among {', '.join(TASKS)}")
    if fields["task"] is not None and fields["answer"] is None:
        raise Refused("a line with a task needs its answer too")
    return Example(**fields)
