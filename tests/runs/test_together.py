"""`lrd-jax run` on two processes of two devices: the answers are those of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from byte_model import write_byte_model

COMMAND = str(Path(sys.executable).parent / "lrd-jax")
LIMIT = 600  # seconds; processes that take longer hang
ASKED = ["--gen-length", "8", "--slots", "4"]


@pytest.mark.slow
def test_answers_are_those_of_one_process(tmp_path):
    model = str(write_byte_model(tmp_path / "bytes", max_length=64))
    lines = [{"id": i, "prompt": f"Prompt {i}." * (4 if i % 2 else 1)} for i in range(10)]
    lines += [{"id": "own", "prompt": "One.", "length": 4, "seed": 3}, {"id": "wrong", "prompt": ""}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LRD_JAX_"))}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(out, *args):
        command = [COMMAND, "run", str(tmp_path / "in.jsonl"), str(tmp_path / out), "--model", model, *ASKED, *args]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        address = f"localhost:{listening.getsockname()[1]}"
    pod = ["--mesh", "data=2,fsdp=2", "--coordinator", address, "--num-processes", "2", "--process-id"]
    processes = [run("together", *pod, str(i)) for i in range(2)]
    try:
        said = [process.communicate(timeout=LIMIT)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1], said
    assert "12 answers, 1 of them errors" in said[0] and "answers" not in said[1]
    run("alone").communicate(timeout=LIMIT)
    together, alone = (
        [json.loads(line) for line in (tmp_path / out / "answers.jsonl").read_text().splitlines()]
        for out in ("together", "alone")
    )
    assert [answer["id"] for answer in together] == [line["id"] for line in lines]
    for name in ("tokens", "text", "forwards", "stop_reason", "error"):
        assert [answer.get(name) for answer in together] == [answer.get(name) for answer in alone]
