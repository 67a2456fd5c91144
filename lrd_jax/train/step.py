"""One training step: gradients of the loss, AdamW, and where the state of both lives on a mesh.

With `Lora` the state's parameters are the adapters, and the model that they stand beside is an argument of the step.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrd_jax.models import Model
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import padded_params
from lrd_jax.train.config import Lora, Optimizer, SoftInputs
from lrd_jax.train.lora import abstract_adapters, adapted
from lrd_jax.train.loss import Batch, loss_fn
from lrd_jax.train.network import TrainedModel


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes."""

    params: Params
    opt_state: Any
    step: jax.Array  # int32, steps done


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW as `Optimizer` says; matrices and embeddings decay, norms and biases don't."""
    segments = config.segments(steps)
    schedules = [
        optax.warmup_cosine_decay_schedule(0.0, peak, config.warmup_steps, end - start, end_value=0.1 * peak)
        for start, end, peak in segments
    ]
    schedule = optax.join_schedules(schedules, [start for start, _, _ in segments[1:]])
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay, mask=_decays),
    )


def _decays(params: Params) -> Params:
    """Which parameters decay, by name: the stacked layer axis makes a norm look like a matrix."""
    return jax.tree.map_with_path(lambda path, _: not path[-1].key.endswith(("norm", "bias")), params)


def abstract_trained(model: Model, mesh: Mesh, lora: Lora | None = None) -> Params:
    """Shape, dtype and place of what is trained: the parameters, or the adapters."""
    return padded_params(model, mesh) if lora is None else abstract_adapters(model, lora, mesh)


def abstract_state(model: Model, config: Optimizer, steps: int, mesh: Mesh, *, lora: Lora | None = None) -> TrainState:
    """Shape, dtype and place of every array of the state; nothing is allocated."""
    optimizer = make_optimizer(config, steps)
    params = abstract_trained(model, mesh, lora)
    opt_state = jax.eval_shape(optimizer.init, params)
    state = TrainState(params=params, opt_state=opt_state, step=jax.ShapeDtypeStruct((), jnp.int32))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        state_shardings(params, optimizer, mesh),
    )


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite: bool `[]`."""
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def state_shardings(trained: Params, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A `NamedSharding` for every array of the state: moments lie as their parameters do, counters everywhere.

    Args:
      trained: see `abstract_trained`.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = jax.tree.map(lambda leaf: leaf.sharding, trained)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, trained),
        params,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(params=params, opt_state=opt_state, step=everywhere)


@functools.cache  # equal runs share one compiled step
def make_step(
    model: Model,
    optimizer: Optimizer,
    mesh: Mesh,
    *,
    steps: int,
    seed: int,
    min_mask_ratio: float,
    soft_inputs: SoftInputs | None,
    remat_blocks: bool = False,
    lora: Lora | None = None,
) -> tuple[Callable[[Params], TrainState], Callable[..., tuple[TrainState, jax.Array]]]:
    """Two jitted functions: what is trained -> the state before the first step; state, batch -> next state, loss.

    With `lora` what is trained are the adapters, and the second function takes the frozen parameters as a third
    argument. A step gives its state's memory to the next one. Its randomness is a function of the seed and the step
    alone.
    """
    transformation = make_optimizer(optimizer, steps)
    shardings = state_shardings(abstract_trained(model, mesh, lora), transformation, mesh)
    network = TrainedModel(model.config, mesh, remat_blocks)

    def start(params: Params) -> TrainState:
        return TrainState(params=params, opt_state=transformation.init(params), step=jnp.int32(0))

    def step(state: TrainState, batch: Batch, frozen: Params | None = None) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_of(trained: Params) -> jax.Array:
            params = trained if lora is None else adapted(frozen, trained, lora)
            return loss_fn(params, network, batch, key, min_mask_ratio, soft_inputs)

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = transformation.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params=params, opt_state=opt_state, step=state.step + 1), loss

    start = jax.jit(start, out_shardings=shardings)
    return start, jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)
