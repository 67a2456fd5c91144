"""The training loop: AdamW on the masked-diffusion loss, with a log, a progress bar and checkpoints to resume from."""

import dataclasses
import functools
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerBase

from lrd_jax.convert.writer import write_hf
from lrd_jax.models import Model
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import make_mesh, shard_batch
from lrd_jax.train.checkpoints import TrainState, restore, save
from lrd_jax.train.config import Optimizer, SoftInputs, TrainConfig
from lrd_jax.train.data import make_batches
from lrd_jax.train.loss import Batch, loss_fn
from lrd_jax.train.start import starting_point


def train(config: TrainConfig) -> Path:
    """Runs to the last step, from the newest checkpoint in the output folder if there is one.

    Writes `log.jsonl` (step, mean loss since the last line, tokens per second, prompt and padding counted),
    `checkpoints/<step>` and at the end `model`, a Hugging Face folder that `lrd_jax.load` takes.

    Returns:
      The folder of the trained model.

    Raises:
      ValueError: what the config asks for cannot be had; nothing has been written then.
    """
    mesh = make_mesh(**dataclasses.asdict(config.mesh))
    model, params, tokenizer = starting_point(config, mesh)
    batches = make_batches(config.data, tokenizer, config.seed, model.config)
    optimizer = make_optimizer(config.optimizer, config.steps)
    step_fn = functools.partial(
        train_step,
        model=model,
        optimizer=optimizer,
        seed=config.seed,
        min_mask_ratio=config.min_mask_ratio,
        soft_inputs=config.soft_inputs,
    )
    output = Path(config.output).absolute()
    state = restore(output, config, TrainState(params=params, opt_state=optimizer.init(params), step=jnp.int32(0)))
    output.mkdir(parents=True, exist_ok=True)
    with Log(output / "log.jsonl", config.last_step, int(state.step)) as log:
        for step in range(int(state.step), config.last_step):
            batch = batches(step)
            state, loss = step_fn(state, shard_batch(batch, mesh))
            log.add(loss, tokens=batch.prompt.size + batch.answer.size)
            if (step + 1) % config.log_every == 0 or step + 1 == config.last_step:
                log.write(step + 1)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.last_step:
                save(output, config, state)
    write_model(output / "model", config, model, state.params, tokenizer)
    return output / "model"


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "seed", "min_mask_ratio", "soft_inputs"),
    donate_argnames="state",
)
def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    seed: int,
    min_mask_ratio: float,
    soft_inputs: SoftInputs | None,
) -> tuple[TrainState, jax.Array]:
    """One update and its loss; the randomness is a function of the seed and the step alone."""
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    loss, gradients = jax.value_and_grad(loss_fn)(state.params, model, batch, key, min_mask_ratio, soft_inputs)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params=params, opt_state=opt_state, step=state.step + 1), loss


@functools.cache  # equal configs share the object, and with it the compiled step
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
    """Which parameters decay, by name: the stacked layer axis makes a norm look like a matrix."""
    return jax.tree.map_with_path(lambda path, _: not path[-1].key.endswith(("norm", "bias")), params)


def write_model(
    dest: Path, config: TrainConfig, model: Model, params: Params, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The trained weights and their tokenizer; a run that had already ended leaves them as they are."""
    if dest.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        write_hf(params, model.config, dest, dtype=config.dtype, tokenizer=Path(folder))


class Log:
    """A JSON line and a progress bar every few steps; lines after the step that a run resumes from are dropped."""

    def __init__(self, path: Path, steps: int, start: int):
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= start]
            path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("training", total=steps, completed=start, facts="")
        self._reset()

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *error):
        self._bar.stop()
        self._file.close()

    def add(self, loss: jax.Array, tokens: int) -> None:
        self._losses.append(loss)  # still being computed: reading it here would wait for the device
        self._tokens += tokens

    def write(self, step: int) -> None:
        loss = float(jnp.mean(jnp.stack(self._losses)))
        speed = self._tokens / (time.perf_counter() - self._since)
        self._file.write(json.dumps({"step": step, "loss": loss, "tokens_per_second": round(speed)}) + "\n")
        self._file.flush()
        self._bar.update(self._task, completed=step, facts=f"loss {loss:.4f}  {speed:,.0f} tokens/s")
        self._reset()

    def _reset(self) -> None:
        self._losses, self._tokens, self._since = [], 0, time.perf_counter()
