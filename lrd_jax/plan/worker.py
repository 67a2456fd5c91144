"""The process that compiles: `python -m lrd_jax.plan.worker` reads a pickled task and writes what became of it."""

import os
import pickle
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import jax
from jax.experimental import topologies

from lrd_jax.errors import Refused
from lrd_jax.plan.compiling import Compiled, Task, TooLarge
from lrd_jax.plan.hlo import Program
from lrd_jax.sharding import make_mesh


def _answer(task: Task) -> Compiled | TooLarge | str:
    """What becomes of a task; a text says why nothing did."""
    several: dict[str, Any] = {"num_slices": task.where.slices} if task.where.slices > 1 else {}
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=task.where.name, **several).devices
    except jax.errors.JaxRuntimeError as error:
        return f"libtpu knows no slice {task.where.name}: {_first_line(error)}"
    began = time.perf_counter()
    lowered = task.job.lower(make_mesh(**task.mesh, devices=devices))
    try:
        compiled, text = _compiled(lowered)
    except jax.errors.JaxRuntimeError as error:
        if found := re.search(r"\(([\d.]+)([KMGT])\) exceeds available HBM", str(error)):
            return TooLarge(int(float(found[1]) * 2 ** (10 * (1 + "KMGT".index(found[2])))))
        return f"the TPU compiler refuses mesh {dict(task.mesh)} on {task.where.name}: {_first_line(error)}"
    memory = cast(Any, compiled.memory_analysis())
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        output=memory.output_size_in_bytes - memory.alias_size_in_bytes,  # what takes the place of an argument
        program=memory.generated_code_size_in_bytes,
        steps=task.job.steps(Program(text)),
        seconds=time.perf_counter() - began,
    )


def _compiled(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str]:
    """The program, and its text as the compiler writes it: jaxlib cannot read back every program of a newer libtpu."""
    with tempfile.TemporaryDirectory(prefix="lrd-jax-plan-") as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        (written,) = Path(folder).glob("*after_codegen.txt")
        return compiled, written.read_text()


def _first_line(error: Exception) -> str:
    return f"{str(error).strip().splitlines()[0]:.300}"


def main() -> None:
    """Answers the task of standard input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libtpu prints goes elsewhere
    with answers:
        try:
            answer = _answer(pickle.loads(sys.stdin.buffer.read()))
        except Refused as error:
            answer = str(error)
        pickle.dump(answer, answers)


if __name__ == "__main__":
    main()
