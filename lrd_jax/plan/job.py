"""What a plan compiles, whatever it is: a job knows its arrays, its program, and which parts of that are one step."""

from collections.abc import Mapping
from typing import Protocol

import jax
from jax.sharding import AbstractMesh, Mesh

from lrd_jax.errors import Refused
from lrd_jax.plan.hlo import Cost, Program
from lrd_jax.sharding import batch_parts


class Job(Protocol):
    """A program on a batch. Jobs are pickled: a process of its own compiles them."""

    def counted(self, mesh: Mesh | AbstractMesh) -> Mapping[str, int]:
        """Bytes a device of what lives as long as the program runs, by name; "parameters" among them."""
        ...

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """The program, for the compiler of the mesh's devices."""
        ...

    def steps(self, program: Program) -> Mapping[str, Cost]:
        """What one step takes, by kind of step."""
        ...


def require_rows(batch: int, mesh: Mesh | AbstractMesh) -> None:
    """Raises ValueError where a mesh cannot split the rows of a batch evenly."""
    parts = batch_parts(mesh)
    if batch % parts:
        raise Refused(f"batch={batch} must be a multiple of the {parts} parts into which the mesh splits rows")
