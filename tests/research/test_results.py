"""The store of results: what a kill leaves, who may write, and what is read."""

import dataclasses
import os

import pytest

from lrd_jax.durable import write_whole
from lrd_jax.errors import Refused
from lrd_jax.research.results import Results, write_json


@dataclasses.dataclass(frozen=True)
class Point:
    of: str
    value: int


def points(path):
    return Results(path, lambda point: point.of, Point)


def test_what_was_appended_is_there_and_the_newest_of_a_key_counts(tmp_path):
    path = tmp_path / "folder" / "r.jsonl"
    with points(path) as file:
        file.append([Point("a", 1), Point("b", 2)])
        file.append([Point("a", 3)])
        assert points(path).read().held == file.held == {"a": Point("a", 3), "b": Point("b", 2)}
    with points(path) as file:
        assert file.held == {"a": Point("a", 3), "b": Point("b", 2)}
    assert path.read_text().count("\n") == 3


def test_what_a_kill_left_of_a_line_is_passed_over_and_then_taken_off(tmp_path):
    path = tmp_path / "r.jsonl"
    with points(path) as file:
        file.append([Point("a", 1)])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"of": "b", "val')
    assert points(path).read().held == {"a": Point("a", 1)}
    with points(path) as file:
        file.append([Point("a", 2)])
    assert path.read_bytes() == whole + whole.replace(b"1", b"2")


def test_a_line_that_is_no_result_is_named_and_nothing_is_cut(tmp_path):
    path = tmp_path / "r.jsonl"
    for content in (b'{"of": "a"}\n{"of', b"[1]\n{", b"nothing\n{"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"r\.jsonl, line 1 is no record .*; take it out"), points(path):
            pass
        with pytest.raises(ValueError, match="line 1 is no record"):
            points(path).read()
        assert path.read_bytes() == content


def test_one_process_writes_and_others_read(tmp_path):
    path = tmp_path / "r.jsonl"
    with points(path) as file:
        file.append([Point("a", 1)])
        with pytest.raises(ValueError, match="being written by another run"), points(path):
            pass
        assert points(path).read().held == file.held


def test_without_a_result_there_is_no_file(tmp_path):
    assert points(tmp_path / "r.jsonl").read().held == {}
    with points(tmp_path / "r.jsonl"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(Refused, match=f"{name} is no file; name a file"):
        write_whole(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "pipe"]
