"""The training loop: AdamW on the masked-diffusion loss, with a log, a progress bar and checkpoints to resume from."""

import dataclasses
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerBase

from lrd_jax.convert.writer import write_hf
from lrd_jax.models import Model
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import make_mesh, shard_batch
from lrd_jax.train.checkpoints import restore, save
from lrd_jax.train.config import TrainConfig
from lrd_jax.train.data import make_batches
from lrd_jax.train.start import starting_point
from lrd_jax.train.step import make_step


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
    start, step_fn = make_step(
        model,
        config.optimizer,
        mesh,
        steps=config.steps,
        seed=config.seed,
        min_mask_ratio=config.min_mask_ratio,
        soft_inputs=config.soft_inputs,
    )
    output = Path(config.output).absolute()
    state = restore(output, config, start(params))
    output.mkdir(parents=True, exist_ok=True)
    with Log(output / "log.jsonl", config.steps, int(state.step)) as log:
        for step in range(int(state.step), config.steps):
            batch = batches(step)
            state, loss = step_fn(state, shard_batch(batch, mesh))
            log.add(loss, tokens=batch.prompt.size + batch.answer.size)
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                log.write(step + 1)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save(output, config, state)
    write_model(output / "model", config, model, state.params, tokenizer)
    return output / "model"


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
