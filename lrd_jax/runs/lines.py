"""A file of prompts: what each line asks for, in the plain form or in that of OpenAI's batch files."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lrd_jax.errors import Refused
from lrd_jax.files import require_file
from lrd_jax.runs.openai import is_batch_line, plain_fields

_FIELDS = {  # what a line may ask for beside its prompt, and what that must be
    "length": (int, "a number of positions"),
    "seed": (int, "a number in [0, 2^63)"),
    "canvas": (str, 'a text with holes, such as "Tom has {4} apples"'),
    "numbers": (dict, 'numbers by name, such as {"threshold": 0.9}'),
}
OWN = ("stop", *_FIELDS)  # what a line may have for itself


class BadLine(Refused):
    """A line that asks for nothing that can be answered; `id` is its own where it has one."""

    def __init__(self, message: str, id: str | int | None = None, *, is_batch: bool = False):
        super().__init__(message)
        self.id, self.is_batch = id, is_batch


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """What one line asks for.

    Attributes:
      number: of the line in its file, from 1.
      id: its own, or the number.
      prompt: a text, or the messages of a conversation.
      length: positions of its answer's canvas; None: the run's.
      seed: of its draws; None: made of the run's.
      stop: its answer ends before the first of these, or of the run's.
      canvas: a text with holes that the answer fills in.
      numbers: numbers of the decoder, by name.
      url: of an OpenAI line, whose answer has the form of that endpoint.
    """

    number: int
    id: str | int
    prompt: Any
    length: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    canvas: str | None = None
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    url: str | None = None


def read_line(number: int, data: bytes) -> Line:
    """
    Args:
      data: UTF-8, as it stands between two line feeds.

    Raises:
      BadLine: saying what is wrong with it.
    """
    try:
        record = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8 at byte {error.start}: write the text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadLine('not a JSON object with a "prompt" or with "messages"')
    is_batch = is_batch_line(record)
    name = "custom_id" if is_batch else "id"
    own = record.get(name)
    if isinstance(own, bool) or not isinstance(own, str if is_batch else str | int | None):
        raise BadLine(f'"{name}" must be a text{"" if is_batch else " or a whole number"}, got {own!r:.80}')
    try:
        return _line(number, number if own is None else own, plain_fields(record) if is_batch else record)
    except Refused as error:
        raise BadLine(str(error), own, is_batch=is_batch) from None


def _line(number: int, id: str | int, record: dict[str, Any]) -> Line:
    if len(record.keys() & {"prompt", "messages"}) != 1:
        raise Refused('not a JSON object with a "prompt" or with "messages"')
    prompt = record.get("messages", record.get("prompt"))
    wanted, words = (list, "a list of them; a text is a prompt") if "messages" in record else (str, "a text")
    if not isinstance(prompt, wanted):
        raise Refused(f'"{"messages" if wanted is list else "prompt"}" must be {words}, got {prompt!r:.80}')
    fields = {name: value for name in _FIELDS if (value := record.get(name)) is not None}
    for name, value in fields.items():
        kind, words = _FIELDS[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Refused(f'"{name}" must be {words}, got {value!r:.80}')
    if not 0 <= fields.get("seed", 0) < 2**63:
        raise Refused(f'"seed" must be a number in [0, 2^63), got {fields["seed"]!r:.80}')
    stop = record.get("stop") or ()
    stop = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, list | tuple) or not all(isinstance(text, str) and text for text in stop):
        raise Refused(f'"stop" must be a text or a list of texts, got {stop!r:.80}')
    return Line(number=number, id=id, prompt=prompt, stop=tuple(stop), url=record.get("url"), **fields)


class PromptFile:
    """A file of prompts, looked through once from end to end and then read line by line.

    Attributes:
      sha256: of the file.
      numbers: of the lines that hold something, ascending.
    """

    def __init__(self, path: Path):
        """
        Raises:
          ValueError: no file, an empty one, one without a single prompt, or two lines of one id.
        """
        self.path = path
        require_file(path, "a file of JSON lines was wanted")
        hasher, self._starts, ids = hashlib.sha256(), {}, {}
        first_wrong, good, start = "", 0, 0
        with path.open("rb") as file:
            self._seen = _state(file)
            for number, data in enumerate(file, start=1):
                hasher.update(data)
                if data.strip():
                    self._starts[number] = start
                    try:
                        id, good = read_line(number, _trimmed(number, data)).id, good + 1
                    except BadLine as error:
                        id, first_wrong = error.id, first_wrong or f"line {number}: {error}"
                    if id is not None and ids.setdefault(id, number) != number:
                        raise Refused(f"{path}: lines {ids[id]} and {number} have the same id {id!r:.80}")
                start += len(data)
        self.sha256, self.numbers = hasher.hexdigest(), list(self._starts)
        if not self.numbers:
            raise Refused(f"{path} is empty: a JSON line a prompt was wanted")
        if not good:
            raise Refused(f"{path} holds no prompt: {first_wrong}")

    def read(self, numbers: list[int]) -> Iterator[tuple[int, Line | BadLine]]:
        """Lines by their numbers, each as it is wanted.

        Raises:
          ValueError: the file is not the one that was looked through.
        """
        with self.path.open("rb") as file:
            for number in numbers:
                if _state(file) != self._seen:
                    raise Refused(f"{self.path} has changed since the run began: run what it is now into a new folder")
                file.seek(self._starts[number])
                try:
                    yield number, read_line(number, _trimmed(number, file.readline()))
                except BadLine as error:
                    yield number, error


def _state(file: IO[bytes]) -> tuple[int, int]:
    """Size, and when it was written."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _trimmed(number: int, data: bytes) -> bytes:
    return data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
