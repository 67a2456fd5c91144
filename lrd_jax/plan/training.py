"""A training step as the job of a plan: what every device holds of model and state, and the step's program.

Axes: B batch, P prompt, G canvas.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from rich.table import Table

from lrd_jax.errors import Refused
from lrd_jax.models import Model, ModelConfig
from lrd_jax.plan.chips import Slice
from lrd_jax.plan.estimate import StepTime, step_time
from lrd_jax.plan.hlo import Cost, Program
from lrd_jax.plan.job import require_rows
from lrd_jax.plan.planner import MeshPlan, mesh_text
from lrd_jax.sharding import batch_sharding, padded_params
from lrd_jax.train.config import Bucket, TrainConfig
from lrd_jax.train.lora import require_rank
from lrd_jax.train.loss import Batch
from lrd_jax.train.step import abstract_state, make_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A step of a recipe on its largest bucket, on a model of any checkpoint.

    Attributes:
      batch: rows, in the place of the bucket's.
      dtype: of parameters that adapters leave as they are.
    """

    model: ModelConfig
    config: TrainConfig
    batch: int
    dtype: str

    def __post_init__(self):
        if self.config.lora is not None:
            require_rank(self.model, self.config.lora)
        longest = max(bucket.prompt + bucket.canvas for bucket in self.config.data.buckets)
        if longest > self.model.max_length:
            raise Refused(
                f"data.buckets: prompt + canvas = {longest} exceeds the model's context of {self.model.max_length}"
            )

    @property
    def bucket(self) -> Bucket:
        """The one of most tokens."""
        return largest_bucket(self.config)

    def counted(self, mesh: Mesh | AbstractMesh) -> dict[str, int]:
        """Bytes a device of the frozen parameters (none, where all are trained) and of what a step changes.

        Raises:
          ValueError: the mesh divides neither the model nor the batch.
        """
        require_rows(self.batch, mesh)
        state = self._state(mesh)
        return {
            "parameters": _bytes(self._frozen(mesh)),
            "trained": _bytes(state.params),
            "moments": _bytes(state.opt_state),
        }

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        _, step = make_step(
            Model(self.model),
            self.config.optimizer,
            mesh,
            steps=self.config.steps,
            seed=self.config.seed,
            min_mask_ratio=self.config.min_mask_ratio,
            soft_inputs=self.config.soft_inputs,
            remat_blocks=self.config.remat_blocks,
            lora=self.config.lora,
        )
        rows = batch_sharding(mesh)
        batch = Batch(
            prompt=self._rows(self.bucket.prompt, jnp.int32, rows),
            prompt_mask=self._rows(self.bucket.prompt, jnp.bool_, rows),
            answer=self._rows(self.bucket.canvas, jnp.int32, rows),
        )
        return step.lower(self._state(mesh), batch, self._frozen(mesh))

    def steps(self, program: Program) -> dict[str, Cost]:
        """All of the program: the way there, the way back, and the optimizer."""
        return {"step": program.cost(program.entry)}

    def _rows(self, length: int, dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.batch, length), dtype, sharding=sharding)

    def _state(self, mesh: Mesh | AbstractMesh) -> Any:
        return abstract_state(Model(self.model), self.config.optimizer, self.config.steps, mesh, lora=self.config.lora)

    def _frozen(self, mesh: Mesh | AbstractMesh) -> Any:
        if self.config.lora is None:
            return None
        return padded_params(Model(self.model), mesh, dtype=jnp.dtype(self.dtype))


def largest_bucket(config: TrainConfig) -> Bucket:
    """The bucket of most tokens."""
    return max(config.data.buckets, key=lambda bucket: bucket.batch * (bucket.prompt + bucket.canvas))


def _bytes(tree: Any) -> int:
    """Of a device's part of everything."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def time_of(plan: MeshPlan, where: Slice) -> StepTime | None:
    """Estimated time of a step; None where it does not fit."""
    return None if plan.compiled is None else step_time(plan.compiled.steps["step"], where.chip)


def table(plans: list[MeshPlan], where: Slice, bucket: Bucket) -> Table:
    """A row for each mesh: bytes, times, tokens with padding counted."""
    found = Table(box=None, pad_edge=False, title_justify="left")
    found.title = (
        f"{where.name}, rows of {bucket.prompt} + {bucket.canvas} tokens: GiB a chip of "
        f"{where.chip.hbm_bytes / 2**30:.2f}, estimated seconds a step"
    )
    for name in ("mesh", "batch", *plans[0].counted, "temporaries", "sum", "compute", "collectives", "tokens/s"):
        found.add_column(name, justify="left" if name == "mesh" else "right")
    for plan in plans:
        head = (mesh_text(plan.mesh), str(plan.batch), *map(_gib, plan.counted.values()))
        time = time_of(plan, where)
        if plan.compiled is None or time is None:
            found.add_row(*head, "", _gib(plan.needs or 0), "", "", "does not fit")
            continue
        temporaries = max(0, plan.compiled.total - sum(plan.counted.values()))
        found.add_row(
            *head,
            _gib(temporaries),
            _gib(plan.compiled.total),
            f"{sum(time.compute.values()):.2f}",
            f"{time.collectives:.2f}",
            f"{plan.batch * (bucket.prompt + bucket.canvas) / time.total:.0f}",
        )
    return found


def as_json(plans: list[MeshPlan], where: Slice, bucket: Bucket) -> list[dict[str, Any]]:
    """The rows of `table`, JSON-ready; bytes are of one device."""
    rows = []
    for plan in plans:
        row: dict[str, Any] = {"mesh": dict(plan.mesh), "batch": plan.batch, "bytes": dict(plan.counted)}
        row |= {"tokens": plan.batch * (bucket.prompt + bucket.canvas), "compiled": plan.compiled is not None}
        time = time_of(plan, where)
        if plan.compiled is None or time is None:
            row["needs_bytes"] = plan.needs
        else:
            row["bytes"]["total"] = plan.compiled.total
            row["compile_seconds"] = plan.compiled.seconds
            row["compute_seconds"] = sum(time.compute.values())
            row["collective_seconds"] = time.collectives
        rows.append(row)
    return rows


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.2f}"
