"""Goes through the meshes of a slice: what each holds, whether it fits, with which batch, and what a step takes."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

from jax.sharding import AbstractMesh

from lrd_jax.errors import Refused
from lrd_jax.models import Model, ModelConfig
from lrd_jax.options import MESH_AXES, mesh_sizes
from lrd_jax.plan.chips import Slice
from lrd_jax.plan.compiling import Compiled, TooLarge, compile_job, require_compiler
from lrd_jax.plan.job import Job
from lrd_jax.plan.search import largest
from lrd_jax.sharding import batch_parts, param_shardings

JobOf = Callable[[int], Job]  # of a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshPlan:
    """What became of one mesh.

    Attributes:
      batch: rows over all devices.
      job: of that batch.
      counted: bytes a device, by part.
      compiled: None where the job does not fit, or where nothing was compiled.
      needs: bytes a device of a job that does not fit.
    """

    mesh: Mapping[str, int]
    batch: int
    job: Job
    counted: Mapping[str, int]
    compiled: Compiled | None = None
    needs: int | None = None


def mesh_named(text: str, devices: int) -> dict[str, int]:
    """The sizes of a mesh of so many devices, as "data=2,tensor=4" names them.

    Raises:
      ValueError: it names none, or one of other devices.
    """
    sizes = dict.fromkeys(MESH_AXES, 1) | mesh_sizes(text)
    if math.prod(sizes.values()) != devices:
        raise Refused(f"mesh={text!r} has {math.prod(sizes.values())} devices; give sizes whose product is {devices}")
    return sizes


def meshes(model: ModelConfig, devices: int, together: int) -> list[dict[str, int]]:
    """Every split into data and tensor that the model allows.

    Args:
      together: devices that a fast network joins, the most that tensor may take.

    Raises:
      ValueError: there is none.
    """
    found, refused = [], ""
    for tensor in (n for n in range(1, together + 1) if together % n == 0):
        sizes = {"data": devices // tensor, "fsdp": 1, "tensor": tensor}
        try:
            param_shardings(Model(model), abstract_mesh(sizes))
        except Refused as error:
            refused = str(error)
        else:
            found.append(sizes)
    if not found:
        raise Refused(refused)
    return found


def abstract_mesh(sizes: Mapping[str, int]) -> AbstractMesh:
    return AbstractMesh(tuple(sizes[axis] for axis in MESH_AXES), MESH_AXES)


def count(job_of: JobOf, mesh: Mapping[str, int], batch: int | None) -> MeshPlan:
    """What a mesh holds, by its shapes alone.

    Args:
      batch: None: one row for each part of the batch.
    """
    batch = batch or parts_of(mesh)
    job = job_of(batch)
    return MeshPlan(mesh=mesh, batch=batch, job=job, counted=job.counted(abstract_mesh(mesh)))


def plan(
    job_of: JobOf,
    where: Slice,
    sizes: list[dict[str, int]],
    batch: int | None,
    tell: Callable[[str], None] = lambda doing: None,
) -> Iterator[MeshPlan]:
    """Compiles for each mesh in turn: the batch, or (None) batches until the largest that fits is known.

    Args:
      tell: told in a few words what begins.

    Raises:
      ValueError: see `compile_job`; or a batch that a mesh does not divide.
    """
    require_compiler()
    for number, mesh in enumerate(sizes, 1):
        counted = count(job_of, mesh, batch)
        if sum(counted.counted.values()) > where.chip.hbm_bytes:
            yield dataclasses.replace(counted, needs=sum(counted.counted.values()))
            continue

        def compiled(rows: int, mesh=mesh, number=number) -> Compiled | TooLarge:
            rows *= parts_of(mesh)
            tell(f"mesh {number} of {len(sizes)}, {mesh_text(mesh)}: compiling a batch of {rows}")
            return compile_job(where, mesh, job_of(rows))

        if batch is None:
            found = largest(compiled, held=counted.counted["parameters"], room=where.chip.hbm_bytes)
            if isinstance(found, TooLarge):
                yield dataclasses.replace(counted, needs=found.total)
            else:
                rows, result = found
                yield dataclasses.replace(count(job_of, mesh, rows * parts_of(mesh)), compiled=result)
            continue
        result = compiled(batch // parts_of(mesh))
        if isinstance(result, TooLarge):
            yield dataclasses.replace(counted, needs=result.total)
        else:
            yield dataclasses.replace(counted, compiled=result)


def parts_of(mesh: Mapping[str, int]) -> int:
    """Into how many parts a mesh splits the rows of a batch."""
    return batch_parts(abstract_mesh(mesh))


def mesh_text(mesh: Mapping[str, int]) -> str:
    """As `--mesh` takes it, axes of size 1 left out."""
    return ",".join(f"{axis}={size}" for axis, size in mesh.items() if size > 1) or "data=1"
