"""A folder of prompts to a folder of answers on a local Ray cluster of two workers, of which one is killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from byte_model import write_byte_model

from lrd_jax.engine import BatchDecoder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'lrd-jax[ray]'"
    ),
]

SCRIPT = Path(__file__).parents[2] / "docs" / "ray_batch.py"
COUNT = 400
LIMIT = 1200  # seconds; a cluster that takes longer hangs


@pytest.fixture
def model(tmp_path):
    return str(write_byte_model(tmp_path / "bytes", max_length=64))


@pytest.fixture
def prompts(tmp_path):
    """Two files of them."""
    (tmp_path / "prompts").mkdir()
    rows = [{"id": i, "prompt": f"Prompt {i}."} for i in range(COUNT)]
    for name, part in (("a.jsonl", rows[: COUNT // 3]), ("b.jsonl", rows[COUNT // 3 :])):
        (tmp_path / "prompts" / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    return rows


def workers(session):
    """Processes of a session that hold a decoder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if "MapWorker" in command and os.getsid(int(folder.name)) == session:
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def test_a_killed_worker_costs_no_answer(tmp_path, model, prompts):
    command = [
        sys.executable,
        SCRIPT,
        tmp_path / "prompts",
        tmp_path / "answers",
        "--model",
        model,
        "--gen-length",
        "8",
    ]
    command += ["--workers", "2", "--cpus", "0.5", "--batch", "8", "--slots", "4"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    with (tmp_path / "log").open("w") as log:
        script = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    began = time.monotonic()

    def wait(there):
        while not (found := there()):
            assert script.poll() is None and time.monotonic() - began < LIMIT, (tmp_path / "log").read_text()[-5000:]
            time.sleep(0.05)
        return found

    try:
        wait(lambda: list((tmp_path / "answers").glob("*")))  # answers come, and most are still to come
        seen = wait(lambda: len(found := workers(script.pid)) == 2 and found)
        os.kill(seen[0], signal.SIGKILL)
        assert script.wait(LIMIT) == 0, (tmp_path / "log").read_text()[-5000:]
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
    answers = [json.loads(line) for file in (tmp_path / "answers").iterdir() for line in file.read_text().splitlines()]
    assert sorted(answer["id"] for answer in answers) == list(range(COUNT))
    assert seen[0] not in workers(script.pid)
    wanted = BatchDecoder(model, "lrd", gen_length=8, slots=4)({"prompt": [row["prompt"] for row in prompts]})
    assert [answer["text"] for answer in sorted(answers, key=lambda answer: answer["id"])] == wanted["text"].tolist()
    assert {answer["error"] for answer in answers} == {""}
