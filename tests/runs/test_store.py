"""A run's folder: parts, resuming, merging, locks, other runs and full disks; nothing is decoded."""

import errno
import json
import os
import threading

import pytest

from lrd_jax import durable
from lrd_jax.errors import Refused
from lrd_jax.runs import store as stores
from lrd_jax.runs.shards import Shard
from lrd_jax.runs.store import Store

ALL = Shard()
MADE_OF = {"model": "m", "decoder": {"commit": {"threshold": 0.9}}}


def answer(line, text="yes", **fields):
    return {"id": f"p{line}", "line": line, "text": text, "stop_reason": "finished", "error": None, **fields}


def open_store(folder, shard=ALL, made_of=MADE_OF):
    return Store(folder, shard, made_of).open()


def test_answers_are_merged_in_the_order_of_the_lines(tmp_path):
    for index in (1, 0):
        with open_store(tmp_path, Shard(index, 2)) as store:
            for line in (5 + index, 3 + index, 1 + index):
                store.add(answer(line))
        assert store.merge(list(range(1, 7))) == (index == 0)
    lines = [json.loads(line) for line in store.answers.read_text().splitlines()]
    assert lines == [answer(line) for line in range(1, 7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "parts", "run.json"]
    again = Store(tmp_path, ALL, MADE_OF)
    assert again.look().done == dict.fromkeys(range(1, 7), True)


def test_what_has_been_answered_counts_once(tmp_path):
    with open_store(tmp_path) as store:
        store.add(answer(1, "first"))
        store.add({"id": "p2", "line": 2, "error": "bad"})
        store.add(answer(3, stop_reason="non-finite"))
    with open_store(tmp_path, Shard(1, 2)) as store:
        assert store.done == {1: True, 2: False, 3: False}
        store.add(answer(1, "second"))
    assert store.merge([1, 2, 3])
    assert json.loads(store.answers.read_text().splitlines()[0])["text"] == "first"


def test_many_parts_are_merged_with_few_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_OPEN_FILES", 2)
    monkeypatch.setattr(stores, "_MOST", 1)
    with open_store(tmp_path) as store:
        for line in range(9, 0, -1):
            store.add(answer(line))
    assert len(list(tmp_path.glob("parts/*/*.jsonl"))) == 9
    assert store.merge(list(range(1, 10)))
    assert [json.loads(line)["line"] for line in store.answers.read_text().splitlines()] == list(range(1, 10))


def test_parts_grow_with_the_time_that_a_run_has_taken(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(stores.time, "monotonic", lambda: now[0])
    sizes = []
    with open_store(tmp_path) as store:
        for line in range(1, 4001):
            store.add(answer(line))
            now[0] += 1
            sizes = (
                [path.read_bytes().count(b"\n") for path in sorted(tmp_path.glob("parts/*/*.jsonl"))]
                if line % 500 == 0
                else sizes
            )
    assert sizes[0] <= 3 and max(sizes) == 61


def test_a_merge_by_many_at_once_is_one(tmp_path):
    with open_store(tmp_path) as store:
        for line in range(1, 200):
            store.add(answer(line))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(Store(tmp_path, ALL, MADE_OF).merge(list(range(1, 200)))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
    assert store.answers.read_bytes().count(b"\n") == 199


def test_one_process_a_shard_and_one_way_to_cut(tmp_path):
    with open_store(tmp_path, Shard(0, 2)):
        with open_store(tmp_path, Shard(1, 2)):
            pass
        with (
            pytest.raises(Refused, match=r"shard 0/2 of .* is being answered by another process"),
            open_store(tmp_path, Shard(0, 2)),
        ):
            pass
        with (
            pytest.raises(Refused, match=r"shard 0/2 of .*, and shard 0/1 would answer prompts of its"),
            open_store(tmp_path),
        ):
            pass
    with open_store(tmp_path):
        pass


@pytest.mark.parametrize(
    ("made_of", "words"),
    [
        ({**MADE_OF, "model": "n"}, "holds a run of another model: choose another folder"),
        ({**MADE_OF, "model": "n", "seed": 1}, "of another model and with seed=None; asked was seed=1: choose another"),
        ({**MADE_OF, "decoder": {"commit": {"threshold": 0.8}}}, "decoder.commit.threshold=0.9; asked was"),
        (
            {"model": "m", "decoder": {"commit": {}}},
            "decoder.commit.threshold=0.9; asked was decoder.commit.threshold=None",
        ),
    ],
)
def test_another_run_is_refused_with_what_differs(tmp_path, made_of, words):
    with open_store(tmp_path):
        pass
    with pytest.raises(Refused, match=words):
        Store(tmp_path, ALL, made_of).look()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", "mine", "holds files, and none of a run"),
        ("answers.jsonl", "{}", "holds files, and none of a run"),
        ("run.json", "{", "run.json is damaged"),
        ("run.json", "[]", "run.json is damaged"),
    ],
)
def test_a_folder_of_other_things_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(Refused, match=words):
        Store(tmp_path, ALL, MADE_OF).look()
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("content", ["{", "[]", "{}\n", '{"line": 1}\n', '{"line": 1, "stop_reason"'])
def test_a_damaged_part_is_named(tmp_path, content):
    with open_store(tmp_path) as store:
        store.add(answer(1))
    (tmp_path / "parts" / "0-of-1" / "00000.jsonl").write_text(content)
    with pytest.raises(Refused, match=r"00000\.jsonl, line 1 is no answer"):
        Store(tmp_path, ALL, MADE_OF).look()


def test_a_full_disk_leaves_finished_parts_whole(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_store(tmp_path) as store:
        store.add(answer(1))
    with monkeypatch.context() as patch:
        words = "1 answers could not be written: No space left on device; 1 are safe in parts: make room"
        with pytest.raises(Refused, match=words), open_store(tmp_path) as store:
            patch.setattr(durable.os, "fsync", full)
            store.add(answer(2))
        with pytest.raises(Refused, match="all answers could not be written"):
            Store(tmp_path, ALL, MADE_OF).merge([1])
    assert not list(tmp_path.rglob("*.part")) and not store.answers.exists()
    assert Store(tmp_path, ALL, MADE_OF).look().done == {1: True}


def test_what_a_kill_left_of_a_part_is_taken_away(tmp_path):
    with open_store(tmp_path):
        pass
    left = tmp_path / "parts" / "0-of-1" / "00000.jsonl.part"
    left.write_text('{"line": 1')
    with open_store(tmp_path) as store:
        assert not left.exists() and store.done == {}
