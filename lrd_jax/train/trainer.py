"""The training loop: AdamW on the masked-diffusion loss, checkpoints that resume at the exact step, a log, a bar."""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from orbax.checkpoint import v1 as ocp
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrd_jax.models import Model
from lrd_jax.models.transformer import Params
from lrd_jax.train.config import Optimizer, TrainConfig
from lrd_jax.train.data import make_batches
from lrd_jax.train.loss import Batch, loss_fn
from lrd_jax.train.start import starting_point


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes."""

    params: Params
    opt_state: Any
    step: jax.Array  # int32, steps done


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW as `Optimizer` says; matrices and embeddings decay, norms and biases don't."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.peak_lr, config.warmup_steps, steps, end_value=0.1 * config.peak_lr
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay, mask=_decays),
    )


def _decays(params: Params) -> Params:
    return jax.tree.map_with_path(lambda path, _: "norm" not in str(path[-1]) and "bias" not in str(path[-1]), params)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "config"), donate_argnames="state")
def train_step(
    state: TrainState, batch: Batch, *, model: Model, optimizer: optax.GradientTransformation, config: TrainConfig
) -> tuple[TrainState, jax.Array]:
    """One update and its loss; the randomness is a function of the seed and the step alone."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    loss, gradients = jax.value_and_grad(loss_fn)(
        state.params, model, batch, key, config.min_mask_ratio, config.soft_inputs
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params=params, opt_state=opt_state, step=state.step + 1), loss


def train(config: TrainConfig) -> Path:
    """Runs to the last step, from the newest checkpoint in the output folder if there is one.

    Returns:
      The output folder.
    """
    output = Path(config.output).absolute()
    model, params, tokenizer = starting_point(config)
    batches = make_batches(config.data, tokenizer, config.seed, model.config.eos_id)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = TrainState(params=params, opt_state=optimizer.init(params), step=jnp.int32(0))
    state = restore(output, config, state)
    step = int(state.step)
    output.mkdir(parents=True, exist_ok=True)
    log = output / "log.jsonl"
    truncate_log(log, step)
    losses, tokens, since = [], 0, time.perf_counter()
    with progress_bar() as bar, log.open("a") as file:
        task = bar.add_task("training", total=config.steps, completed=step, loss=float("nan"), speed=0.0)
        while step < config.steps:
            batch = batches(step)
            state, loss = train_step(state, batch, model=model, optimizer=optimizer, config=config)
            step += 1
            losses.append(loss)
            tokens += batch.prompt.size + batch.answer.size
            if step % config.log_every == 0 or step == config.steps:
                mean = float(jnp.mean(jnp.stack(losses)))
                speed = tokens / (time.perf_counter() - since)
                file.write(json.dumps({"step": step, "loss": mean, "tokens_per_second": round(speed, 1)}) + "\n")
                file.flush()
                bar.update(task, completed=step, loss=mean, speed=speed)
                losses, tokens, since = [], 0, time.perf_counter()
            if step % config.checkpoint_every == 0 or step == config.steps:
                save(output, config, state)
    return output


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def save(output: Path, config: TrainConfig, state: TrainState) -> None:
    """Writes checkpoints/<step> and deletes the ones before it."""
    folder = output / "checkpoints"
    name = str(int(state.step))
    tree = dataclasses.asdict(state) if False else {"params": state.params, "opt_state": state.opt_state}
    ocp.save(folder / name, tree, custom_metadata={"train_config": config.to_json()}, overwrite=True)


def restore(output: Path, config: TrainConfig, state: TrainState) -> TrainState:
    folder = output / "checkpoints"
    steps = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
    if not steps:
        return state
    path = folder / str(steps[-1])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        {"params": state.params, "opt_state": state.opt_state},
    )
    tree = ocp.load(path, abstract)
    return TrainState(step=jnp.int32(steps[-1]), **tree)


def truncate_log(log: Path, step: int) -> None:
    if log.exists():
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(line + "\n" for line in kept))
