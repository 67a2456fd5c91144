"""Files of prompts and answers."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lrd_jax.durable import write_whole
from lrd_jax.errors import Refused


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a text: line feeds alone end them, and an answer may hold any other line break that Unicode has."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def text_of(line: bytes) -> str:
    """A line as text.

    Raises:
      ValueError: it is not UTF-8.
    """
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8 at byte {error.start}: write the text in UTF-8") from None


def prompt_of(line: bytes, *, as_json: bool) -> tuple[Any, str | None]:
    """The prompt or conversation of a line, of a JSON object its "prompt" or "messages", else the line itself; and the
    "canvas" that its answer must fill in, if it has one.

    Raises:
      ValueError: the line is neither.
    """
    text = text_of(line)
    if not as_json:
        return text, None
    try:
        record = json.loads(text)
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from None
    if not isinstance(record, dict) or len(record.keys() & {"prompt", "messages"}) != 1:
        raise Refused('not a JSON object with a "prompt" or with "messages"')
    if not isinstance(canvas := record.get("canvas"), str | None):
        raise Refused(f'"canvas" must be a text with holes, such as "Tom has {{4}} apples", got {canvas!r:.80}')
    if "messages" in record:
        return record["messages"], canvas
    if not isinstance(record["prompt"], str):
        raise Refused(f'"prompt" must be a text, got {record["prompt"]!r}')
    return record["prompt"], canvas


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[TextIO]:
    """Where answers go: standard output, or a file that is there only once all of them are.

    Raises:
      ValueError: the file's folder does not exist.
    """
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent} for --output {path}: make it first")
    text = io.StringIO()
    yield text
    write_whole(path, text.getvalue())
