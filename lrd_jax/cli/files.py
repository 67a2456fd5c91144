"""Files of prompts and answers."""

import codecs
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lrd_jax.durable import followed, write_whole
from lrd_jax.errors import Refused
from lrd_jax.runs.lines import OWN

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def unmarked(data: bytes) -> bytes:
    """A text without the byte-order mark of UTF-8.

    Raises:
      ValueError: it begins with another one: its line feeds are no single bytes, and would end no lines.
    """
    if data.startswith(_WIDE_MARKS):
        raise Refused("the input begins with the byte-order mark of UTF-16 or UTF-32: write it in UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a text: line feeds alone end them, and an answer may hold any other line break that Unicode has.

    Raises:
      ValueError: there is none, or it is not UTF-8, see `unmarked`.
    """
    if not (text := unmarked(data)):
        raise Refused("the --input is empty: a prompt a line was wanted")
    return text.removesuffix(b"\n").split(b"\n")


def text_of(line: bytes) -> str:
    """A line as text.

    Raises:
      ValueError: it is not UTF-8.
    """
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8 at byte {error.start}: write the text in UTF-8") from None


def argument(text: str) -> str:
    """A text of the command line, which is UTF-8 whatever the locale says.

    Raises:
      ValueError: it is not UTF-8.
    """
    try:
        return text_of(os.fsencode(text))
    except UnicodeEncodeError:  # the locale's characters are not ours
        return text


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
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from None
    if not isinstance(record, dict) or len(record.keys() & {"prompt", "messages"}) != 1:
        raise Refused('not a JSON object with a "prompt" or with "messages"')
    if others := [name for name in OWN if name != "canvas" and record.get(name) is not None]:
        named = " or ".join(f'"{name}"' for name in others)
        raise Refused(
            f"generate asks alike for all lines and reads no {named} of one: leave it out, or answer the file with "
            "lrd-jax run, which obeys it"
        )
    if not isinstance(canvas := record.get("canvas"), str | None):
        raise Refused(f'"canvas" must be a text with holes, such as "Tom has {{4}} apples", got {canvas!r:.80}')
    if isinstance(record.get("messages"), str):
        raise Refused(f'"messages" must be a list of them, got {record["messages"]!r:.80}; a text is a "prompt"')
    if "messages" in record:
        return record["messages"], canvas
    if not isinstance(record["prompt"], str):
        raise Refused(f'"prompt" must be a text, got {record["prompt"]!r}')
    return record["prompt"], canvas


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[TextIO]:
    """Where answers go: standard output, or a file that is there only once all of them are.

    Raises:
      ValueError: no file can be written there; that is known before the first answer.
    """
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    if path.is_dir():
        raise Refused(f"--output {path} is a folder: name a file")
    if path.is_socket():
        raise Refused(f"--output {path} is a socket: name a file")
    if path.exists() and os.path.samestat(path.stat(), os.fstat(1)):  # /dev/stdout
        yield sys.stdout
        sys.stdout.flush()
        return
    path = followed(path) if path.is_symlink() else path
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent} for --output {path}: make it first")
    text = io.StringIO()
    if path.exists() and not path.is_file():  # a pipe or a device is written to, and stays
        yield text
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text.getvalue())
        return
    try:
        tempfile.TemporaryFile(dir=path.parent, prefix=f"{path.name}.part").close()
    except OSError as error:
        raise Refused(f"--output {path} cannot be written: {error.strerror}") from None
    yield text
    write_whole(path, text.getvalue().encode(errors="replace").decode())
