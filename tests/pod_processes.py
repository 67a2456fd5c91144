"""Processes of two devices each as one JAX program, on this machine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 300  # seconds; a pod that takes longer hangs


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LRD_JAX_", "SLURM_"))}
    flags = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return {**kept, **flags, "PYTHONPATH": str(Path(__file__).parent)}


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
    """Copies of a program, their log files and what they wrote."""

    def __init__(self, folder, program, count=2):
        self.folder, self.address = folder, f"localhost:{free_port()}"
        self.logs = [folder / f"{i}.log" for i in range(count)]
        self.processes = []
        for i, log in enumerate(self.logs):
            command = [sys.executable, program, self.address, str(count), str(i), folder]
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
