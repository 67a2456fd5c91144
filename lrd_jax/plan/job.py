"""What a plan compiles, whatever it is: a job knows its arrays, its program, and which parts of that are one step."""

from collections.abc import Mapping
from typing import Protocol

import jax
from jax.sharding import AbstractMesh, Mesh

from lrd_jax.plan.hlo import Cost, Program


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
