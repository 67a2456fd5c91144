"""Records of answered samples in a JSON-lines file that survives a kill at any moment.

A batch is appended with one write. A kill in the middle of it leaves a last line without its end, which is taken off
when the file is opened again, so that no sample is there twice or half.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from lrd_jax.errors import Refused
from lrd_jax.locking import append_lines, open_alone, whole_lines

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


class RecordFile:
    """The records of one run; a context manager that no second process can hold open at the same time."""

    def __init__(self, path: Path):
        self.path = path
        self.records: dict[Key, Record] = {}

    def __enter__(self) -> Self:
        """Opens or creates the file and reads what is there.

        Raises:
          ValueError: another process holds it, or a line that is no record.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_alone(self.path)
        try:
            self._read()
        except ValueError:
            self._file.close()
            raise
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def append(self, records: list[Record]) -> None:
        """Writes the records; they are with the operating system when it returns."""
        append_lines(self._file, [dataclasses.asdict(record) for record in records])
        self.records |= {record.key: record for record in records}

    def _read(self) -> None:
        for number, line in whole_lines(self._file):
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise Refused(f"{self.path}, line {number} is no record ({error}); take it out") from error
            self.records[record.key] = record


def read_records(path: Path) -> list[Record]:
    """The records of a run that nobody writes any more."""
    with RecordFile(path) as file:
        return list(file.records.values())


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a run, or compares them with those that are there.

    Raises:
      ValueError: a run with other settings lies there.
    """
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(settings, indent=1) + "\n")
        unfinished.replace(path)  # a kill leaves whole settings or none
        return
    there = json.loads(path.read_text())
    differ = [name for name in settings | there if settings.get(name) != there.get(name)]
    if differ:
        got = ", ".join(f"{name}={settings.get(name)!r}" for name in differ)
        held = ", ".join(f"{name}={there.get(name)!r}" for name in differ)
        raise Refused(f"{path.parent} holds a run with {held}; asked was {got}: choose another folder")
