"""The network as training runs it: rows stay on their devices, and the way back may compute blocks again."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from lrd_jax.models import Model
from lrd_jax.models.transformer import Attend, Params
from lrd_jax.sharding import batch_sharding


@dataclasses.dataclass(frozen=True)
class TrainedModel(Model):
    """A `Model` of the same numbers, on a mesh.

    Attributes:
      mesh: that the rows are split over. Left alone, GSPMD may cut activations along `embed` as fsdp cuts the weights,
        and every device then works on every row.
      remat: the way back keeps the input of every block, and computes the rest of it again.
    """

    mesh: Mesh
    remat: bool

    def layers(
        self, params: Params, embeddings: jax.Array, positions: jax.Array, attend: Attend, cache: Any = None
    ) -> tuple[jax.Array, Any]:
        return self.bind(params).layers(embeddings, positions, attend, cache, around=self._around)

    def _around(self, block: Callable) -> Callable:
        def on_rows(x: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            if self.mesh.size > 1:
                x = jax.lax.with_sharding_constraint(x, batch_sharding(self.mesh))
            return block(x, layer)

        return jax.checkpoint(on_rows, prevent_cse=False) if self.remat else on_rows
