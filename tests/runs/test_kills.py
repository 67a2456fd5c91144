"""A run that is killed at random moments, and started again each time, loses no line and repeats none."""

import collections
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrd_jax.tasks import EMBEDDED, problems

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).parent / "lrd-jax")
KILLS = 20
COMMAND_KILLS = int(os.environ.get("COMMAND_KILLS", 4))  # each costs seconds of imports; more by hand


def records(file):
    data = file.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def require_whole_parts(out, ids):
    """Every part is whole, and no line is in two of them."""
    found = [record["id"] for part in out.glob("parts/*/*.jsonl") for record in records(part)]
    assert set(found) <= set(ids) and max(collections.Counter(found).values(), default=1) == 1
    return len(found)


def wait_for_part(out, running):
    """Seconds until one more is there, or nobody runs who could write one."""
    began, before = time.monotonic(), len(list(out.glob("parts/*/*.jsonl")))
    while len(list(out.glob("parts/*/*.jsonl"))) == before and any(process.poll() is None for process in running):
        time.sleep(0.01)
        assert time.monotonic() - began < 300
    return time.monotonic() - began


def kill_at_random(commands, out, ids, kills, starting, answering):
    """Starts the commands together and kills them, again and again; the answers that were there each time.

    Args:
      starting: every other kill comes within so many seconds,
      answering: and the others within so many of an answer.
    """
    draw, counts = random.Random(0), []
    for kill in range(kills):
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
        if kill % 2:
            wait_for_part(out, running)
        time.sleep(draw.uniform(0, answering if kill % 2 else starting))
        for process in running:
            process.kill()
        for process in running:
            said = process.communicate()[1].decode()
            assert process.returncode in (-9, 0), said
        counts.append(require_whole_parts(out, ids))
        assert not (out / "answers.jsonl").exists() or len(records(out / "answers.jsonl")) == len(ids)
    assert counts == sorted(counts) and counts[kills // 2] > 0
    return counts


@pytest.mark.slow
def test_a_folder_survives_kills_of_two_shards_at_any_moment(tmp_path):
    out, ids = tmp_path / "out", [f"p{line}" for line in range(1, 2001)]
    commands = [[sys.executable, HERE / "answering.py", out, shard, "2000"] for shard in ("0/2", "1/2")]
    kill_at_random(commands, out, ids, KILLS, starting=0.5, answering=0.05)
    for command in commands:
        subprocess.run(command, check=True)
    assert [record["id"] for record in records(out / "answers.jsonl")] == ids
    assert require_whole_parts(out, ids) == len(ids)


@pytest.mark.slow
def test_the_command_survives_kills_at_any_moment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ids, out = [f"q{i}" for i in range(100 * COMMAND_KILLS)], tmp_path / "out"
    count = len(ids) // len(EMBEDDED)
    asked = [problem.prompt for task in EMBEDDED for problem in problems(task, "held-out", 0, count, grade=2)]
    lines = [json.dumps({"id": id, "prompt": prompt}) for id, prompt in zip(ids, asked, strict=True)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))

    def command(out):
        return [COMMAND, "run", str(tmp_path / "in.jsonl"), str(out), "--gen-length", "32"]

    whole = subprocess.Popen(command(tmp_path / "whole"))
    starting = wait_for_part(tmp_path / "whole", [whole])
    began = time.monotonic()
    assert whole.wait() == 0
    answering = time.monotonic() - began

    counts = kill_at_random([command(out)], out, ids, COMMAND_KILLS, starting, answering / (2 * COMMAND_KILLS))
    print(f"answers at each kill: {counts}; starting {starting:.1f} s, answering {answering:.1f} s")
    subprocess.run(command(out), check=True)
    expected, got = (records(folder / "answers.jsonl") for folder in (tmp_path / "whole", out))
    assert [record["id"] for record in got] == ids
    assert [record["text"] for record in got] == [record["text"] for record in expected]
    assert require_whole_parts(out, ids) == len(ids)
