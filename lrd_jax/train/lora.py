"""Low-rank adapters of a frozen model: their shapes, where they live, how they start, and the model with them.

Adapters are a nested dict as parameters are, `{"blocks": {"q": {"a": ..., "b": ...}}}`: float32, stacked over layers, A
`[layers, *in, r]` and B `[layers, r, *out]`. On a mesh their axes lie as those of their matrix do; r is never cut.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrd_jax.errors import Refused
from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.low_rank import LowRank
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import padded_params
from lrd_jax.train.config import MATRICES, Lora

_INPUTS = {"out": 2}  # axes that a matrix contracts, where more than one


def require_rank(model: ModelConfig, lora: Lora) -> None:
    """Refuses a rank above the smaller side of a matrix: the adapter would be larger than what it adapts."""
    sides = {name: min(_sides(leaf, name)) for name, leaf in _kernels(Model(model), lora).items()}
    if small := [f"{name} ({side})" for name, side in sides.items() if side < lora.rank]:
        raise Refused(
            f"lora.rank={lora.rank} is above the smaller side of {', '.join(small)}; "
            f"give at most {min(sides.values())}, or leave such matrices out"
        )


def num_adapted(model: ModelConfig, lora: Lora) -> int:
    """Numbers in all adapters."""
    D, F, H = model.embed_dim, model.mlp_dim, model.head_dim
    heads, kv = model.num_heads * H, model.num_kv_heads * H
    sides = {"q": D + heads, "k": D + kv, "v": D + kv, "out": heads + D, "gate": D + F, "up": D + F, "down": F + D}
    return model.num_layers * lora.rank * sum(sides[name] for name in lora.matrices)


def abstract_adapters(model: Model, lora: Lora, mesh: Mesh) -> Params:
    """Shape, dtype and place of every adapter; nothing is allocated."""
    kernels = padded_params(model, mesh)["blocks"]

    def factors(name: str) -> dict[str, jax.ShapeDtypeStruct]:
        kernel, cut = kernels[name], 1 + _INPUTS.get(name, 1)
        axes = (*kernel.sharding.spec, *[None] * (kernel.ndim - len(kernel.sharding.spec)))
        shapes = {
            "a": ((*kernel.shape[:cut], lora.rank), (*axes[:cut], None)),
            "b": ((kernel.shape[0], lora.rank, *kernel.shape[cut:]), (axes[0], None, *axes[cut:])),
        }
        return {
            key: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
            for key, (shape, spec) in shapes.items()
        }

    return {"blocks": {name: factors(name) for name in lora.matrices}}


def fresh_adapters(model: Model, lora: Lora, mesh: Mesh, seed: int) -> Params:
    """Adapters that change nothing: A normal with variance 1 / inputs, B 0. The same numbers on every mesh."""
    wanted = abstract_adapters(model, lora, mesh)

    def start(key: jax.Array) -> Params:
        made = {}
        for name, leaf in wanted["blocks"].items():
            a, b = leaf["a"], leaf["b"]
            scale = math.prod(a.shape[1:-1]) ** -0.5
            own = jax.random.fold_in(key, MATRICES.index(name))
            made[name] = {"a": scale * jax.random.normal(own, a.shape), "b": jnp.zeros(b.shape)}
        return {"blocks": made}

    return jax.jit(start, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, wanted))(jax.random.key(seed))


def adapted(params: Params, adapters: Params, lora: Lora) -> Params:
    """The parameters with a `LowRank` in the place of every adapted matrix."""
    scale = lora.alpha / lora.rank
    blocks = {
        name: LowRank(kernel=params["blocks"][name], a=factors["a"], b=factors["b"], scale=scale)
        for name, factors in adapters["blocks"].items()
    }
    return params | {"blocks": params["blocks"] | blocks}


def _kernels(model: Model, lora: Lora) -> dict[str, Any]:
    kernels = model.abstract_params()["blocks"]
    return {name: kernels[name] for name in lora.matrices}


def _sides(kernel: Any, name: str) -> tuple[int, int]:
    cut = 1 + _INPUTS.get(name, 1)
    return math.prod(kernel.shape[1:cut]), math.prod(kernel.shape[cut:])
