"""Engines over two processes of two devices: the answers are those of one process."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from byte_model import write_byte_model
from pod_launching import Pod
from pod_requests import CONFIGS, PROMPT_LENGTH, requests

from lrd_jax import load, make_decode
from lrd_jax.presets import adjusted
from lrd_jax.text import left_pad

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The model, and the facts of each process."""
    folder = tmp_path_factory.mktemp("pod")
    (folder / "model").symlink_to(write_byte_model(folder / "bytes", chat=True, max_length=64))
    pod = Pod(
        folder, lambda address, process: [Path(__file__).parent / "engine_program.py", address, "2", process, folder]
    )
    try:
        pod.wait("json")
        yield load(folder / "model"), [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]
    finally:
        pod.stop()


def test_answers_are_those_of_one_process(seen):
    loaded, (facts, _) = seen
    decoders = [make_decode(loaded.model, config) for config in CONFIGS]
    for (which, request), got in zip(requests(), facts["answers"], strict=True):
        decode, length = decoders[which], request.length or CONFIGS[which].gen_length
        prompt, mask = left_pad([request.prompt, [5] * PROMPT_LENGTH], 0)
        wanted = decode(
            loaded.params,
            prompt[:1],
            mask[:1],
            jax.random.key(request.seed),
            length=np.array([length]),
            config=adjusted(decode.config, request.numbers),
        )
        assert got["canvas"] == wanted.tokens[0, :length].tolist()
        assert got["forwards"] == wanted.forwards[0]


def test_an_idle_pod_goes_on(seen):
    _, (facts, _) = seen
    index = [which for which, _ in requests()].index(0)
    assert facts["again"] == facts["answers"][index]["canvas"]


def test_arguments_that_differ_are_refused_everywhere(seen):
    for facts in seen[1]:
        assert "the engine's arguments" in facts["refused"][0]
        assert "slots" in facts["refused"][0]


def test_requests_go_to_process_0(seen):
    assert "this is process 1 of a pod: submit to the engine on process 0" in seen[1][1]["refused"][1]


def test_no_other_thread_works_on_the_devices(seen):
    assert all("thread" in facts["guarded"].lower() for facts in seen[1])
