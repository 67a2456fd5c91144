"""Two processes of two devices each: they decode what one process decodes, and one that dies ends the other."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import goldens
import jax
import numpy as np
import pytest
from pod_decodes import CONFIGS, DECODES, MESHES, prompts

from lrd_jax.convert.conversion import convert
from lrd_jax.decoding.loop import make_decode

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LIMIT = 300  # seconds; a pod that takes longer hangs


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LRD_JAX_", "SLURM_"))}
    flags = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return {**kept, **flags, "PYTHONPATH": str(HERE.parent)}


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def stop(processes):
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


class Pod:
    """Copies of `program.py`, their log files and what they wrote."""

    def __init__(self, folder, count=2):
        self.folder, self.address = folder, f"localhost:{free_port()}"
        self.logs = [folder / f"{i}.log" for i in range(count)]
        self.processes = []
        for i, log in enumerate(self.logs):
            command = [sys.executable, HERE / "program.py", self.address, str(count), str(i), folder]
            with log.open("w") as file:
                self.processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment()))

    def wait(self, name):
        """Until every process wrote its file of that name."""
        end = time.monotonic() + LIMIT
        while not all((self.folder / f"{i}.{name}").exists() for i in range(len(self.processes))):
            if time.monotonic() > end or any(process.poll() is not None for process in self.processes):
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in self.logs)
                pytest.fail(f"the pod did not come to {name}:\n{logs}")
            time.sleep(0.2)


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pod")
    (folder / "hf").symlink_to(goldens.GOLDEN)
    for name in ("tiny-llada", "tiny-dream"):
        convert(str(goldens.GOLDEN / name), folder / "orbax" / name)
    pod = Pod(folder)
    try:
        yield pod
    finally:
        stop(pod.processes)


@pytest.fixture(scope="module")
def one_process(checkpoint, pod):
    """What one device decodes, by checkpoint and decoder; computed while the pod runs."""
    results = {}
    for _, name, _, decoder in DECODES:
        if (name, decoder) not in results:
            model, params = checkpoint(name)
            results[name, decoder] = make_decode(model, CONFIGS[decoder])(params, *prompts())
    return results


@pytest.fixture(scope="module")
def seen(pod, one_process):
    """The facts and arrays of each process."""
    pod.wait("done")
    facts = [json.loads((pod.folder / f"{i}.json").read_text()) for i in range(2)]
    return facts, [dict(np.load(pod.folder / f"{i}.npz")) for i in range(2)]


def test_processes_see_each_other(seen):
    assert [facts["devices"] for facts in seen[0]] == [[0, 2, 4, 2], [1, 2, 4, 2]]


@pytest.mark.parametrize("number", range(len(DECODES)), ids=["-".join(decode) for decode in DECODES])
def test_tokens_are_those_of_one_process(seen, one_process, number):
    _, name, _, decoder = DECODES[number]
    for arrays in seen[1]:
        np.testing.assert_array_equal(arrays[f"{number}.tokens"], one_process[name, decoder].tokens)
        np.testing.assert_array_equal(arrays[f"{number}.forwards"], one_process[name, decoder].forwards)


def test_prompts_need_not_be_placed(seen, one_process):
    for arrays in seen[1]:
        np.testing.assert_array_equal(arrays["unplaced.tokens"], one_process["tiny-llada", "plain"].tokens)


@pytest.mark.parametrize(("mesh", "name"), sorted({decode[:2] for decode in DECODES}))
def test_a_device_holds_its_part_and_no_more(seen, checkpoint, mesh, name):
    _, fsdp, tensor = MESHES[mesh]
    model, params = checkpoint(name)
    kv_parts = tensor if model.config.num_kv_heads % tensor == 0 else 1
    parts = dict.fromkeys(("table", "head", "q", "out", "gate", "up", "down"), fsdp * tensor)
    parts |= {"k": fsdp * kv_parts, "v": fsdp * kv_parts}
    parts |= {"q_bias": tensor, "k_bias": kv_parts, "v_bias": kv_parts}
    flat = jax.tree.leaves_with_path(params)
    want = sum(leaf.nbytes // parts.get(path[-1].key, 1) for path, leaf in flat)
    for facts in seen[0]:
        assert facts[f"bytes.{mesh}.{name}"] == [want, want]


def test_shard_gives_every_device_its_part(seen, checkpoint):
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(checkpoint("tiny-llada")[1]))
    assert [facts["bytes.shard"] for facts in seen[0]] == [[whole, whole]] * 2


def test_what_is_placed_is_fetched_whole(seen):
    rows = np.arange(24).reshape(8, 3)
    for facts, arrays in zip(*seen, strict=True):
        assert facts["bytes of place"] == [rows.size, rows.size]  # a quarter of int32
        np.testing.assert_array_equal(arrays["place.rows"], rows)
        np.testing.assert_array_equal(arrays["moved"], rows)
        assert arrays["place.one"] == np.float32(3)
        keys = jax.random.key_data(jax.random.split(jax.random.key(7), 4))
        np.testing.assert_array_equal(arrays["place.keys"], keys)


def test_data_goes_across_processes_and_tensor_stays_inside(seen):
    for facts in seen[0]:
        at = facts["processes of meshes"]
        assert at["tensor"] == [[[0, 0]], [[1, 1]]]
        assert at["fsdp"] == [[[0], [0]], [[1], [1]]]


def test_a_mesh_that_leaves_processes_out_is_refused(seen):
    for facts in seen[0]:
        two, three = facts["left out"]
        assert "takes 2 of the 4 devices of 2 processes, and leaves out processes 1; " in two
        assert "takes 3 of the 4 devices of 2 processes; give sizes whose product is 4" in three
        assert "6 rows does not split over mesh axis data=2 x fsdp=2" in facts["wrong rows"]


def test_a_process_that_dies_ends_the_other(pod, seen):
    first, second = pod.processes
    second.send_signal(signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        first.wait(60)  # six times the heartbeat
    assert first.returncode, "the other process went on, or ended as if all were well"
    assert "another task died" in pod.logs[0].read_text()
