"""What was measured: JSON lines that survive a kill at any moment, by what they are of; and JSON for people to read."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from lrd_jax.durable import append_lines, open_alone, whole_lines, write_whole
from lrd_jax.errors import Refused

R = TypeVar("R")


class Results(Generic[R]):
    """The results of one file, by what they are of; of equal keys the newest counts.

    A context manager that no second process can hold open at the same time. A batch is appended with one write; what a
    kill leaves of a line is taken off when the file is opened again.

    Attributes:
      held: results by key, in the order of the file.
    """

    def __init__(self, path: Path, key: Callable[[R], Hashable], kind: Callable[..., R] = dict):
        """
        Args:
          key: what a result is of.
          kind: makes a result of the fields of a line: dict, or a dataclass.
        """
        self.path = path
        self._key, self._kind = key, kind
        self.held: dict[Hashable, R] = {}

    def __enter__(self) -> Self:
        """Opens or creates the file and reads what is there.

        Raises:
          ValueError: another process holds it, or a line that is no result.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_alone(self.path)
        with contextlib.ExitStack() as on_error:
            on_error.callback(self._file.close)
            for number, line in whole_lines(self._file):
                self._parse(number, line)
            on_error.pop_all()
        return self

    def __exit__(self, *error) -> None:
        if not os.fstat(self._file.fileno()).st_size:  # an error came before the first result
            self.path.unlink(missing_ok=True)
        self._file.close()

    def read(self) -> Self:
        """What is there, nothing where the file is absent, without a claim to it.

        Raises:
          ValueError: a line that is no result.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            self._parse(number, line)
        return self

    def append(self, results: Iterable[R]) -> None:
        """Writes results; they are with the operating system when it returns."""
        results = list(results)
        append_lines(self._file, [_fields(result) for result in results])
        self._hold(results)

    def _parse(self, number: int, line: bytes) -> None:
        try:
            self._hold([self._kind(**json.loads(line))])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Refused(f"{self.path}, line {number} is no record ({error}); take it out") from error

    def _hold(self, results: list[R]) -> None:
        self.held |= {self._key(result): result for result in results}


def _fields(result: Any) -> dict[str, Any]:
    return dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON that people read, whole or not at all."""
    write_whole(path, json.dumps(content, indent=1) + "\n")
