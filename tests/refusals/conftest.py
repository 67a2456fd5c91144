"""Tiny models to ask wrongly, a folder to ask from, and what every refused command must leave as it was."""

import io
import os
import shlex
import socket
import sys
from pathlib import Path

import pytest
from byte_model import write_byte_model
from word_model import write_word_model

from lrd_jax.cli import USER_ERROR, main
from lrd_jax.convert import convert
from lrd_jax.decoding import compiling
from lrd_jax.plan import planner

QUESTION = "Tom has 14 apples. Ann takes 5 apples. How many are left?"
STANDING = {  # files of the folder that every command is run in; None: a folder
    "file": "a text",
    "folder": None,
    "good.jsonl": f'{{"prompt": "{QUESTION}"}}\n',
    "empty.jsonl": "",
    "marked.txt": "\ufeff",
    "wide.txt": "Tom\nAnn\n".encode("utf-16"),
    "twice.jsonl": '{"id": "a", "prompt": "A"}\n{"id": "a", "prompt": "B"}\n',
    "other/notes.txt": "mine",
    "broken/run.json": "{",
    "another/run.json": '{"model": "m"}',
    "good.json": f'{{"prompt": "{QUESTION}"}}\n',
    "unknown.jsonl": '{"prompt": "Zebras sing."}\n',
}
LINKS = {  # and where they lead; what writes is never asked to write to a device
    "loop": "loop",
    "loop.toml": "loop.toml",
    "dangling": "no/file",
    "device.jsonl": "/dev/null",
    "device.toml": "/dev/null",
    "pipe.toml": "fifo",
    "pipe.png": "fifo",
}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Name -> folder: of words alone and without chats; of any text, with chats; and the first one converted."""
    root = tmp_path_factory.mktemp("models")
    word = write_word_model(root)
    convert(word, root / "orbax")
    return {
        "word": word,
        "byte": str(write_byte_model(root / "byte", chat=True, max_length=256)),
        "orbax": root / "orbax",
    }


@pytest.fixture(autouse=True)
def no_forward(monkeypatch):
    """What is refused is refused before anything runs: in here the first forward of a decode is a failure.

    So is the question for libtpu: what a plan refuses is refused alike with it and without.
    """

    def forward(*args, **kwargs):
        raise AssertionError("accepted: a decode has begun")

    def compiler():
        raise AssertionError("accepted: the TPU compiler would be asked")

    monkeypatch.setattr(compiling.PlatformJit, "__call__", forward)
    monkeypatch.setattr(planner, "require_compiler", compiler)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The folder that commands are run in, with what stands there."""
    lay_out(tmp_path, STANDING)
    for name, target in LINKS.items():
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        yield tmp_path


def lay_out(root, files):
    for name, content in files.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def tree(root):
    """Every file and folder below one, files with their contents."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path(root).rglob("*"))}


@pytest.fixture
def refuses(desk, models, capsys, monkeypatch):
    """`refuses(line, words)`: a command ends with status 2 and one message that holds the words, and changes nothing.

    In the line, {word}, {byte} and {orbax} are models, and Q is a question that all of them take.
    """

    def check(line, words, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        args = [_named(arg, models) for arg in shlex.split(line)]
        before = tree(desk)
        try:
            status = main(args)
        except SystemExit as end:  # tyro's refusals
            status = end.code
        out, err = capsys.readouterr()
        assert status == USER_ERROR, (status, out, err)
        assert out == ""
        said = " ".join(err.replace("│", " ").split())
        assert words in said, said
        assert "Traceback" not in err and err.count("error: ") <= 1
        assert tree(desk) == before
        return err

    return check


def _named(arg, models):
    for name, folder in models.items():
        arg = arg.replace(f"{{{name}}}", str(folder))
    return QUESTION if arg == "Q" else arg


@pytest.fixture(scope="session", autouse=True)
def untouched(models):
    """No refusal has changed a model."""
    before = {name: tree(folder) for name, folder in models.items()}
    yield
    assert {name: tree(folder) for name, folder in models.items()} == before
