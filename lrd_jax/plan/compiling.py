"""The TPU compiler, asked in a process of its own (`worker.py`).

libtpu holds the compiler. It asks the machine about chips that are not there unless the environment forbids it, it logs
as it likes, and some questions end its process: none of that may happen to who asks.
"""

import dataclasses
import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping

from lrd_jax.errors import Refused
from lrd_jax.plan.chips import Slice
from lrd_jax.plan.hlo import Cost
from lrd_jax.plan.job import Job

_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # a chip of this machine, if there is one, is left alone
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server knows of the slice
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is touched
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler planned for one chip.

    Attributes:
      arguments, temporaries, output, program: bytes.
      steps: what a step takes, by kind.
      seconds: that it took to compile.
    """

    arguments: int
    temporaries: int
    output: int
    program: int
    steps: Mapping[str, Cost]
    seconds: float

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.arguments + self.temporaries + self.output + self.program


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """The program does not fit: it needs so many bytes on a chip."""

    total: int


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker is sent."""

    where: Slice
    mesh: Mapping[str, int]
    job: Job


def require_compiler() -> None:
    """Raises ValueError where libtpu is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise Refused(
            "libtpu, which holds the TPU compiler, is not installed: pip install 'lrd-jax[tpu]', or libtpu alone, on "
            "any Linux x86-64 machine (no TPU is needed). Without it --gpu counts what a model and its batch hold"
        )


def compile_job(where: Slice, mesh: Mapping[str, int], job: Job) -> Compiled | TooLarge:
    """Compiles a job for slices that need not be there.

    Args:
      mesh: sizes of its axes, see `lrd_jax.sharding.make_mesh`.

    Raises:
      ValueError: libtpu is not installed, knows no such slice, or gave up.
    """
    require_compiler()
    done = subprocess.run(
        [sys.executable, "-m", "lrd_jax.plan.worker"],
        input=pickle.dumps(Task(where, mesh, job)),
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Refused(
            f"the TPU compiler ended with status {done.returncode} on {where.name} with mesh {dict(mesh)}; the end of "
            f"what it said: {said[-1]:.300}"
        )
    answer = pickle.loads(done.stdout)
    if isinstance(answer, str):
        raise Refused(answer)
    return answer
