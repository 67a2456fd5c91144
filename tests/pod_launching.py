"""Processes that are one program on this machine, with their logs and a hard limit."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HERE = TESTS / "pods"
HEARTBEAT = 10  # seconds
LIMIT = 300  # seconds; a pod that takes longer hangs


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LRD_JAX_", "SLURM_"))}
    flags = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    ours = {"LRD_JAX_HEARTBEAT_SECONDS": str(HEARTBEAT), "LRD_JAX_TIMEOUT_SECONDS": "120"}
    return {**kept, **flags, **ours, "PYTHONPATH": str(TESTS)}


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


class Pod:
    """Two processes, their log files and what they wrote."""

    def __init__(self, folder, command, **streams):
        """`command(address, process)` gives the arguments of Python; streams are those of `Popen`."""
        self.folder, address = folder, f"localhost:{free_port()}"
        self.logs = [folder / f"{i}.log" for i in range(2)]
        self.processes = []
        for i, log in enumerate(self.logs):
            with log.open("w") as file:
                started = subprocess.Popen(
                    [sys.executable, *command(address, str(i))],
                    **{"stdout": file, "stderr": file, **streams},
                    env=environment(),
                )
            self.processes.append(started)

    def wait(self, name):
        """Until every process wrote its file of that name."""
        end = time.monotonic() + LIMIT
        while not all((self.folder / f"{i}.{name}").exists() for i in range(2)):
            if time.monotonic() > end or any(process.poll() is not None for process in self.processes):
                self.fail(name)
            time.sleep(0.2)

    def statuses(self, seconds=LIMIT):
        """The exit statuses, once all have ended."""
        end = time.monotonic() + seconds
        while any(process.poll() is None for process in self.processes):
            if time.monotonic() > end:
                self.fail("its end")
            time.sleep(0.2)
        return [process.returncode for process in self.processes]

    def fail(self, goal):
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in self.logs)
        pytest.fail(f"the pod did not come to {goal}:\n{logs}")

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if stream is not None:
                        stream.close()
