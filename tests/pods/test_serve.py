"""A server of two processes: it answers as one process does, and ends with either of them."""

import re
import signal

import pytest
from byte_model import write_byte_model
from pod_launching import HEARTBEAT, Pod
from serving import eventually, httpx

from lrd_jax import DecodeConfig, Generator, load

pytestmark = pytest.mark.slow

PROMPTS = ["One.", "The second prompt is longer.", "x" * 40]
OPTIONS = ["--gen-length", "8", "--canvas", "8", "--prompt-length", "64", "--slots", "4", "--mesh", "data=2,fsdp=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_byte_model(tmp_path_factory.mktemp("bytes"), max_length=128)


@pytest.fixture
def pod(folder, tmp_path):
    def command(address, process):
        joins = ["--coordinator", address, "--num-processes", "2", "--process-id", process]
        begins = "from lrd_jax.cli import main; raise SystemExit(main())"
        return ["-c", begins, "serve", "--model", folder, "--port", "0", *OPTIONS, *joins]

    pod = Pod(tmp_path, command)
    try:
        yield pod
    finally:
        pod.stop()


@pytest.fixture
def client(pod):
    """Of the address that process 0 has told."""
    said = r"is ready: (http://\S+)/v1"
    eventually(lambda: re.search(said, pod.logs[0].read_text()) or any(p.poll() for p in pod.processes), 120)
    if not (found := re.search(said, pod.logs[0].read_text())):
        pod.fail("an address")
    with httpx.Client(base_url=found[1], timeout=60) as client:
        yield client


def test_it_answers_as_one_process_does_until_it_is_told_to_end(folder, pod, client):
    wanted = [answer.text for answer in Generator(load(folder), DecodeConfig.lrd(8)).generate(PROMPTS)]
    choices = client.post("/v1/completions", json={"prompt": PROMPTS}).json()["choices"]
    assert [choice["text"] for choice in choices] == wanted
    told = client.post("/v1/completions", json={"prompt": "One.", "lrd": {"labels": ["a", "b"]}})
    assert told.status_code == 400 and "by a server of one process" in told.json()["error"]["message"]
    pod.processes[0].send_signal(signal.SIGTERM)
    assert pod.statuses(60) == [0, 0]


def test_a_process_that_is_killed_ends_the_server(pod, client):
    assert client.get("/health").status_code == 200
    pod.processes[1].kill()
    assert pod.processes[0].wait(6 * HEARTBEAT) == 1
    told = [line for line in pod.logs[0].read_text().splitlines() if line.startswith(("error", "Traceback"))]
    assert len(told) == 1 and told[0].startswith("error: another process is gone (")
