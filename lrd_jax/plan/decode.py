"""A decode as the job of a plan: what it keeps on every device, and its program.

Axes: B batch, P prompt, G canvas.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.request import Request, check_room
from lrd_jax.decoding.start import init_state
from lrd_jax.errors import Refused
from lrd_jax.models import Model, ModelConfig
from lrd_jax.plan.hlo import Cost, Program
from lrd_jax.plan.job import require_rows
from lrd_jax.sharding import RULES, batch_sharding, kept_spec, padded_params


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """A decode of `batch` prompts of `prompt_length` tokens.

    Attributes:
      dtype: of the parameters.
    """

    model: ModelConfig
    config: DecodeConfig
    batch: int
    prompt_length: int
    dtype: str

    def __post_init__(self):
        for name in ("batch", "prompt_length"):
            if getattr(self, name) < 1:
                raise Refused(f"{name}={getattr(self, name)} must be at least 1")
        make_decode(Model(self.model), self.config)
        check_room(self.prompt_length, self.config.gen_length, self.model)

    def counted(self, mesh: Mesh | AbstractMesh) -> dict[str, int]:
        """Bytes a device of parameters, cache and state, by their shapes and the table of `lrd_jax.sharding`.

        Raises:
          ValueError: the mesh divides neither the model nor the batch.
        """
        require_rows(self.batch, mesh)
        cache, state = self._carried(mesh)
        return {
            "parameters": sum(map(_part, jax.tree.leaves(self._params(mesh)))),
            "cache": sum(map(_part, jax.tree.leaves(self._like_cache(cache, mesh)))),
            "state": sum(_part(_placed(leaf, self._like_logits(leaf, mesh))) for leaf in jax.tree.leaves(state)),
        }

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        rows = functools.partial(_placed, sharding=batch_sharding(mesh))
        decode = make_decode(Model(self.model), self.config)
        return decode.lower(self._params(mesh), self.batch, self.prompt_length, rows)

    def steps(self, program: Program) -> dict[str, Cost]:
        """One forward and what follows; of a cached decode one that refreshes, and one that recomputes a region."""
        if self.config.cache is None:
            return {"forward": program.step()}
        return {"refresh": program.step(), "forward": program.step(occasional=False)}

    def refreshes(self, tokens: float) -> float:
        """The share of refreshes among the forwards, where each commits so many tokens."""
        cache = self.config.cache
        if cache is None:
            return 0.0
        forwards = max(1.0, self.config.window / tokens)
        every = getattr(cache, "refresh_every", None)
        return (1 if every is None else math.ceil(forwards / every)) / forwards

    def _params(self, mesh: Mesh | AbstractMesh) -> Any:
        return padded_params(Model(self.model), mesh, dtype=jnp.dtype(self.dtype))

    def _like_cache(self, cache: Any, mesh: Mesh | AbstractMesh) -> Any:
        """Every array that the cache keeps, as it lies on the mesh; one that says nothing of its rows lies whole."""
        axes = self.config.asking.row_axes(cache)
        if axes is None:
            return jax.tree.map(lambda leaf: _placed(leaf, NamedSharding(mesh, PartitionSpec())), cache)
        return jax.tree.map(
            lambda leaf, rows: _placed(leaf, NamedSharding(mesh, kept_spec(leaf.shape, rows, mesh))), cache, axes
        )

    def _like_logits(self, leaf: Any, mesh: Mesh | AbstractMesh) -> NamedSharding:
        """Rows split; and the vocabulary, where the last axis is it and divides."""
        size = self.model.vocab_size
        whole = leaf.shape[-1] != size or len(leaf.shape) == 1 or size % mesh.shape["tensor"] > 0
        between = [None] * (len(leaf.shape) - 2)
        return NamedSharding(mesh, PartitionSpec(RULES["batch"], *([] if whole else [*between, "tensor"])))

    def _carried(self, mesh: Mesh | AbstractMesh) -> tuple[Any, Any]:
        """The shapes of what the cache keeps, and of the rest of the loop's state."""
        prompt = jax.ShapeDtypeStruct((self.batch, self.prompt_length), jnp.int32)
        model = Model(self.model)

        def start(params, prompt):
            keys = None if self.config.draws is False else jax.random.split(jax.random.key(0), self.batch)
            state = init_state(model, params, self.config, Request(prompt, prompt > 0, keys, None, None))
            return state.cache, state.replace(cache=None, keys=None)

        params = model.abstract_params(jnp.dtype(self.dtype))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.eval_shape(start, params, prompt)


def _placed(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _part(leaf: jax.ShapeDtypeStruct) -> int:
    """Bytes of a device's part."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
