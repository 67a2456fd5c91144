"""How processes find each other, by JAX's own runtime (https://docs.jax.dev/en/latest/multi_process.html)."""

import os
import re
import socket
import time
from typing import Any

import jax
from jax._src import xla_bridge
from jax._src.clusters import ClusterEnv  # what jax.distributed detects by: an address is named before it is waited for

from lrd_jax.errors import Refused
from lrd_jax.pods.agreement import agree
from lrd_jax.pods.versions import versions

NUM_PROCESSES = "LRD_JAX_NUM_PROCESSES"
PROCESS_ID = "LRD_JAX_PROCESS_ID"
COORDINATOR = "JAX_COORDINATOR_ADDRESS"  # JAX's own; it has none for the others
HEARTBEAT_SECONDS = "LRD_JAX_HEARTBEAT_SECONDS"
TIMEOUT_SECONDS = "LRD_JAX_TIMEOUT_SECONDS"

_VARIABLES = {"coordinator": COORDINATOR, "num_processes": NUM_PROCESSES, "process_id": PROCESS_ID}

_MOST = 10**9 - 1  # what JAX's runtime takes of seconds and processes is int32

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int | None = None,
    timeout_seconds: int | None = None,
) -> None:
    """Joins this process to the others; call it on every one, before JAX touches a device.

    What is None is read from `JAX_COORDINATOR_ADDRESS`, `LRD_JAX_NUM_PROCESSES` and `LRD_JAX_PROCESS_ID`, and else from
    what launched the process: Cloud TPU, GKE, a Kubernetes Indexed Job (with `pip install jax[k8s]`), Slurm or OpenMPI.
    Nothing is done where none of them speaks of another process, nor in a process that is connected.

    A process sees all devices of its host where it is the host's only one or its launcher left it a single device; of
    several that a launcher started on a host without dividing the devices, each takes the one of its local rank.

    Args:
      coordinator: host:port of process 0.
      process_id: 0 to num_processes - 1.
      heartbeat_seconds: a process that is not heard of for so long counts as dead, and all others end too; None:
        `LRD_JAX_HEARTBEAT_SECONDS`, or 100.
      timeout_seconds: how long the processes wait for each other here; None: `LRD_JAX_TIMEOUT_SECONDS`, or 300. JAX
        itself ends process 0 after it, with the processes that are missing.

    Raises:
      ValueError: a part of the three is missing, or out of range; a device was touched before; the coordinator does
        not answer; or the processes differ in the versions of Python, jax, jaxlib or this package's code.
    """
    if jax.distributed.is_initialized():
        return
    _check_types(coordinator, num_processes, process_id, heartbeat_seconds, timeout_seconds)
    coordinator = os.environ.get(COORDINATOR) or None if coordinator is None else coordinator
    num_processes = _number(NUM_PROCESSES) if num_processes is None else num_processes
    if num_processes == 1:
        return
    process_id = _number(PROCESS_ID, least=0) if process_id is None else process_id
    heartbeat_seconds = heartbeat_seconds or heartbeat_of()
    timeout_seconds = timeout_seconds or _number(TIMEOUT_SECONDS) or 300
    if None in (coordinator, num_processes, process_id):
        coordinator, num_processes, process_id, _ = ClusterEnv.auto_detect_unset_distributed_params(
            coordinator, num_processes, process_id, [], None, timeout_seconds
        )
    parts = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    if all(part is None for part in parts.values()) or num_processes == 1:  # as a launcher says
        return
    coordinator, num_processes, process_id = _checked(parts)
    if xla_bridge.backends_are_initialized():
        raise Refused(
            "connect() came after JAX had touched a device, and would find the devices of this process only: call it "
            "first, before jax.devices(), jax.random.key() and any array"
        )
    if process_id:
        _await(coordinator, process_id, timeout_seconds)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for a notice and go on
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        local_device_ids=_local_device_ids(),
        initialization_timeout=timeout_seconds,
        heartbeat_timeout_seconds=heartbeat_seconds,
    )
    agree("versions", versions())


def heartbeat_of() -> int:
    """Seconds of the heartbeat where nothing else was asked for."""
    return _number(HEARTBEAT_SECONDS) or 100


def _check_types(coordinator: Any, *numbers: Any) -> None:
    if coordinator is not None and (not isinstance(coordinator, str) or not coordinator):
        raise Refused(f"coordinator must be host:port of process 0, got {coordinator!r:.80}")
    names = ("num_processes", "process_id", "heartbeat_seconds", "timeout_seconds")
    for name, least, number in zip(names, (1, 0, 1, 1), numbers, strict=True):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
            raise Refused(f"{name}={number!r:.80} must be an integer of at least {least}")
        if number is not None and number > _MOST:
            raise Refused(f"{name}={number!r:.80} must be at most {_MOST}")


def _checked(parts: dict[str, Any]) -> tuple[str, int, int]:
    if missing := [name for name, part in parts.items() if part is None]:
        known = ", ".join(_as_given(name, part) for name, part in parts.items() if part is not None)
        wanted = " and ".join(f"{name} (--{name.replace('_', '-')} or {_VARIABLES[name]})" for name in missing)
        raise Refused(f"{known} is of a program of several processes: give {wanted} too, or leave it out")
    host, _, port = parts["coordinator"].rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise Refused(f"coordinator must be host:port of process 0, got {parts['coordinator']!r}")
    if not 0 <= parts["process_id"] < parts["num_processes"]:
        raise Refused(
            f"process_id must be 0 to num_processes - 1, got {parts['process_id']} of {parts['num_processes']}"
        )
    return parts["coordinator"], parts["num_processes"], parts["process_id"]


def _as_given(name: str, part: Any) -> str:
    """A part with the name of the variable that gave it, where one did."""
    variable = _VARIABLES[name]
    return f"{variable}={part}" if os.environ.get(variable) == str(part) else f"{name}={part!r}"


def _await(coordinator: str, process_id: int, seconds: float) -> None:
    """Waits until something listens at the coordinator's address: JAX would abort this process in the end."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=max(0.1, end - time.monotonic())):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise Refused(
                    f"process {process_id} got no answer from the coordinator at {coordinator} within {seconds} s "
                    f"({error}): start process 0 there, and let this host reach that port"
                ) from error
        time.sleep(min(0.5, seconds / 10))


def _number(variable: str, least: int = 1) -> int | None:
    text = os.environ.get(variable, "")
    if text and not (re.fullmatch(r"[0-9]{1,9}", text) and int(text) >= least):
        raise Refused(f"{variable} must be a whole number of at least {least} and at most {_MOST}, got {text!r:.80}")
    return int(text) if text else None


def _local_device_ids() -> list[int] | None:
    """Of this process: [] for all it sees; None leaves it to JAX, which takes the launcher's local rank."""
    if os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    tasks, nodes = _number("SLURM_NTASKS") or 1, _number("SLURM_STEP_NUM_NODES") or 1
    shares_a_host = tasks > nodes or (_number("OMPI_COMM_WORLD_LOCAL_SIZE") or 1) > 1
    has_one = any(os.environ.get(name, ",").count(",") == 0 for name in _VISIBLE)
    return None if shares_a_host and not has_one else []
