"""Records of answered samples, and the settings that they were made with."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from lrd_jax.errors import Refused
from lrd_jax.research.results import Results, write_json

Key = tuple[str, int, int]  # task, index of the problem, repetition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One answered sample.

    Attributes:
      task: lm-eval's name of the task.
      index: of the problem in its data, from 0.
      repeat: which answer to the same problem, from 0.
      output: the answer, cut at the first end token and the first stop string.
      forwards, refine_forwards: see `lrd_jax.DecodeResult`.
      stop_reason: "finished", "settled", "end-of-text", "step-limit" or "non-finite".
      effective_tokens: generated tokens that `output` is made of.
      seconds: the row's share of its batch's decoding; compiling and grading are not in it.
      correct: whether our grading passes it; None where nobody grades.
      verdict: what was compared, or how its code ended.
    """

    task: str
    index: int
    repeat: int
    prompt: str
    output: str
    forwards: int
    refine_forwards: int
    stop_reason: str
    effective_tokens: int
    seconds: float
    correct: bool | None
    verdict: str

    @property
    def key(self) -> Key:
        return self.task, self.index, self.repeat


class RecordFile(Results[Record]):
    """The records of one run."""

    def __init__(self, path: Path):
        super().__init__(path, lambda record: record.key, Record)


def read_records(path: Path) -> list[Record]:
    """The records of a run that nobody writes any more."""
    with RecordFile(path) as file:
        return list(file.held.values())


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a run, or compares them with those that are there.

    Raises:
      ValueError: a run with other settings lies there.
    """
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    there = json.loads(path.read_text())
    differ = [name for name in settings | there if settings.get(name) != there.get(name)]
    if differ:
        got = ", ".join(f"{name}={settings.get(name)!r}" for name in differ)
        held = ", ".join(f"{name}={there.get(name)!r}" for name in differ)
        raise Refused(f"{path.parent} holds a run with {held}; asked was {got}: choose another folder")
