"""Who is asked for the other processes, and what is said where they are not to be had."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax._src import xla_bridge

from lrd_jax import pods

SLURM = {"SLURM_JOB_ID": "5", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
OMPI = {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:34911", "OMPI_COMM_WORLD_RANK": "0"}
OMPI |= {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
OURS = {pods.COORDINATOR: "host:1234", pods.NUM_PROCESSES: "2", pods.PROCESS_ID: "0"}


@pytest.fixture
def launched(monkeypatch):
    """`launched(environment)`: what jax.distributed would be asked for there; None: nothing."""

    def launched(environment, *args, **kwargs):
        asked = []
        for name in list(os.environ):
            if name.startswith(("JAX_COORD", "JAX_LOCAL", "LRD_JAX_", "SLURM_", "OMPI_", "CUDA_", "HIP_", "ROCR_")):
                monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
        monkeypatch.setattr(jax.distributed, "initialize", lambda *at, **kinds: asked.append((at, kinds)))
        pods.connect(*args, **kwargs)
        return asked[0] if asked else None

    return launched


def test_alone_nothing_is_done(launched):
    assert launched({}) is None
    assert launched({}, "host:1234", 1, 0) is None


def test_the_three_come_from_arguments_or_the_environment(launched):
    assert launched(OURS)[0] == launched({}, "host:1234", 2, 0)[0] == ("host:1234", 2, 0)
    at, kinds = launched({**OURS, pods.NUM_PROCESSES: "3"}, heartbeat_seconds=7, timeout_seconds=9)
    assert at == ("host:1234", 3, 0)
    assert (kinds["heartbeat_timeout_seconds"], kinds["initialization_timeout"]) == (7, 9)


@pytest.mark.parametrize(
    ("environment", "local"),
    [
        ({**SLURM, "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, []),
        ({**SLURM, "SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2"}, None),
        ({**SLURM, "SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2", "CUDA_VISIBLE_DEVICES": "0,1,2"}, None),
        ({**SLURM, "SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2", "CUDA_VISIBLE_DEVICES": "5"}, []),
        ({**SLURM, "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2", "JAX_LOCAL_DEVICE_IDS": "1"}, None),
        ({**OMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({**OMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None),
    ],
)
def test_a_process_alone_on_its_host_takes_all_devices(launched, environment, local):
    (address, count, process), kinds = launched(environment)
    assert kinds["local_device_ids"] == local
    assert process == 0 and count == int(environment.get("SLURM_NTASKS", 2))
    assert address.split(":")[0] == ("node3" if "SLURM_JOB_ID" in environment else "10.0.0.1")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {pods.NUM_PROCESSES: "2"},
            r"LRD_JAX_NUM_PROCESSES=2 is of .*: give coordinator \(--coordinator or JAX_COORDINATOR_ADDRESS\) and proc",
        ),
        ({**OURS, pods.PROCESS_ID: "two"}, r"LRD_JAX_PROCESS_ID must be a whole number of at least 0 .*, got 'two'"),
        ({**OURS, "LRD_JAX_TIMEOUT_SECONDS": "-5"}, r"TIMEOUT_SECONDS must be a whole number of at least 1 .* '-5'"),
        ({**OURS, "LRD_JAX_TIMEOUT_SECONDS": "0"}, r"TIMEOUT_SECONDS must be a whole number of at least 1 .* '0'"),
        ({**OURS, pods.PROCESS_ID: "2"}, r"process_id must be 0 to num_processes - 1, got 2 of 2"),
        ({**OURS, pods.COORDINATOR: "host"}, r"coordinator must be host:port of process 0, got 'host'"),
    ],
)
def test_what_is_missing_or_wrong_is_named(launched, environment, words):
    with pytest.raises(ValueError, match=words):
        launched(environment)


def test_a_device_that_was_touched_is_too_late():
    jax.devices()
    with pytest.raises(ValueError, match=r"after JAX had touched a device"):
        pods.connect("localhost:1", 2, 1)


def test_a_coordinator_that_does_not_answer_is_named():
    code = (
        "from lrd_jax.pods import connect\n"
        "connect()\n"
        "try: connect('localhost:1', 2, 1, timeout_seconds=1)\n"
        "except ValueError as error: print(error)\n"
        "import jax\n"
        "assert jax.process_count() == 1"
    )
    root = Path(__file__).parents[2]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LRD_JAX_", "SLURM_"))}
    environment = {**kept, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert result.returncode == 0, result.stderr
    assert "process 1 got no answer from the coordinator at localhost:1 within 1 s" in result.stdout
