"""The training loop: AdamW on the masked-diffusion loss, with a log, a progress bar and checkpoints to resume from."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from transformers import PreTrainedTokenizerBase

from lrd_jax.checkpoint import embedded_models, find_model
from lrd_jax.convert.adapters import AdapterInfo, write_adapter, write_merged
from lrd_jax.convert.folders import require_outside
from lrd_jax.convert.weights import fingerprint, open_weights
from lrd_jax.convert.writer import write_hf
from lrd_jax.durable import check_writable
from lrd_jax.errors import Refused
from lrd_jax.models import Model
from lrd_jax.models.transformer import Params
from lrd_jax.options import check_names
from lrd_jax.pods import agree, fetch_to_first, from_first, is_first
from lrd_jax.sharding import fit_params, make_mesh, padded_params, shard_batch
from lrd_jax.train.checkpoints import newest, require_room, restore, resumable, save
from lrd_jax.train.config import TrainConfig
from lrd_jax.train.data import make_batches
from lrd_jax.train.log import Log
from lrd_jax.train.lora import require_rank
from lrd_jax.train.memory import num_params, num_trained, require_memory
from lrd_jax.train.start import frozen_params, held_dtype, model_and_tokenizer, starting_params
from lrd_jax.train.step import abstract_state, all_finite, make_step

_LOG = "log.jsonl"  # in the folder of every run, from its start on


def train(config: TrainConfig) -> Path:
    """Runs to the last step, from the newest checkpoint in the output folder if there is one.

    Writes `log.jsonl` (step, mean loss since the last line, tokens per second, prompt and padding counted),
    `checkpoints/<step>` and at the end `model`, a folder that `lrd_jax.load` takes: as on the Hugging Face hub, or of
    adapters, which it adds to their base.

    Returns:
      The folder of the trained model.

    Raises:
      ValueError: what the config asks for cannot be had, and nothing has been written then; another run is writing
        there; the disk is full; or the loss is not finite any more. The last two leave the last good checkpoint.
    """
    if not isinstance(config, TrainConfig):
        raise Refused(f"config must be a TrainConfig, such as read_config(path), got a {type(config).__name__}")
    output = Path(config.output).absolute()
    agree("training runs", {**config.to_json(), "output": str(output)})
    from_first(lambda: _check_output(config, output))
    mesh = make_mesh(**dataclasses.asdict(config.mesh))
    model, tokenizer = model_and_tokenizer(config)
    if config.lora is not None:
        require_rank(model.config, config.lora)
    require_memory(config, model.config, mesh, jnp.dtype(held_dtype(config)).itemsize)
    _require_whole_heads(model, mesh)
    batches = make_batches(config.data, tokenizer, config.seed, model.config)
    from_first(lambda: None if newest(output) else _check_room(output, config, model))
    base = None if config.lora is None else from_first(lambda: fingerprint(find_model(config.init)))
    with _folder(output), _log(output, config.steps) as log:
        start, step_fn = make_step(
            model,
            config.optimizer,
            mesh,
            steps=config.steps,
            seed=config.seed,
            min_mask_ratio=config.min_mask_ratio,
            soft_inputs=config.soft_inputs,
            remat_blocks=config.remat_blocks,
            lora=config.lora,
        )
        abstract = abstract_state(model, config.optimizer, config.steps, mesh, lora=config.lora)
        state = restore(output, config, abstract, base=base)
        if state is None:
            state = start(starting_params(config, model, mesh))
        frozen = frozen_params(config, mesh)
        log.start(int(state.step))
        for step in range(int(state.step), config.steps):
            batch = batches(step)
            state, loss = step_fn(state, shard_batch(batch, mesh), frozen)
            log.add(loss, tokens=batch.prompt.size + batch.answer.size)
            last = step + 1 == config.steps
            logs, saves = (last or (step + 1) % every == 0 for every in (config.log_every, config.checkpoint_every))
            if logs or saves:
                _require_finite(output, config, log.first_not_finite(step + 1))
            if logs:
                with resumable("the log", output, newest(output)):
                    log.write(step + 1)
            if saves:
                _require_finite(output, config, None if all_finite(state.params) else (step + 1, "a parameter"))
                save(output, config, state, base=base)
        with resumable("the model", output / "model", config.steps):
            _write_model(output / "model", config, model, state.params, tokenizer, base)
    return output / "model"


def _require_whole_heads(model: Model, mesh: jax.sharding.Mesh) -> None:
    """Refuses sizes that the mesh does not divide; heads too, which a decode pads: their zeros would be trained."""
    tensor, heads = mesh.shape["tensor"], model.config.num_heads
    if padded_params(model, mesh)["blocks"]["q"].shape[2] != heads:
        sizes = ", ".join(str(size) for size in range(1, heads + 1) if heads % size == 0)
        raise Refused(f"mesh axis tensor={tensor} does not divide heads ({heads}); sizes that do: {sizes}")


def _write_model(
    dest: Path, config: TrainConfig, model: Model, params: Params, tokenizer: PreTrainedTokenizerBase, base: str | None
) -> None:
    """`write_model`, or `_write_adapted`, on process 0; a run that had already ended leaves its model as it is."""
    if from_first(dest.exists):
        return
    params = fetch_to_first(params)
    if base is None:
        like = model.abstract_params()
        from_first(lambda: write_model(dest, config, model, fit_params(model, params, like), tokenizer))
    else:
        from_first(lambda: _write_adapted(dest, config, model, params, tokenizer, base))


def _write_adapted(
    dest: Path, config: TrainConfig, model: Model, adapters: Params, tokenizer: PreTrainedTokenizerBase, base: str
) -> None:
    """Adapters apart, or their base with them, its weights read once more."""
    assert config.lora is not None and config.init is not None, "adapters have a base"
    folder = find_model(config.init)
    name = config.init if folder in embedded_models().values() else str(folder.absolute())
    info = AdapterInfo(base=name, fingerprint=base, rank=config.lora.rank, alpha=config.lora.alpha)
    if not config.lora.merge:
        write_adapter(dest, info, model.config, adapters)
        return
    with tempfile.TemporaryDirectory() as files:
        tokenizer.save_pretrained(files)
        write_merged(dest, info, open_weights(folder), adapters, dtype=config.dtype, tokenizer=Path(files))


def write_model(
    dest: Path, config: TrainConfig, model: Model, params: Params, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The trained weights and their tokenizer; a run that had already ended leaves them as they are."""
    if dest.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        write_hf(params, model.config, dest, dtype=config.dtype, tokenizer=Path(folder))


def _check_output(config: TrainConfig, output: Path) -> None:
    """Refuses an output that could not be written once the run is over, or where something else lies."""
    check_names(output, "output")
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir():
        raise Refused(f"output: {there} is a file; name a folder")
    check_writable(there, "output")
    if (output / "model").exists() and newest(output) is None:
        raise Refused(f"output: {output / 'model'} is there already, of no run to go on with; name another folder")
    began = (output / _LOG).exists() or newest(output) is not None
    if not began and output.is_dir() and any(output.iterdir()):
        raise Refused(f"output: {output} holds files, and none of a run; name a new or an empty folder")
    if config.init is not None:
        require_outside(output, find_model(config.init))


def _check_room(output: Path, config: TrainConfig, model: Model) -> None:
    """Refuses a disk that has no room for what the run will write at least: two checkpoints, and the model."""
    trained = 4 * num_trained(config, model.config)  # bytes: float32
    whole = jnp.dtype(config.dtype).itemsize * num_params(model.config)
    apart = config.lora is not None and not config.lora.merge
    wanted = 2 * 3 * trained + (trained if apart else whole)  # a checkpoint holds both moments too
    try:
        require_room(output, wanted)
    except OSError as error:
        raise Refused(f"output: {output} has no room for two checkpoints and the model: {error}") from None


@contextlib.contextmanager
def _log(output: Path, steps: int) -> Iterator[Log]:
    """The run's log; what other processes than the first write is thrown away."""
    with contextlib.ExitStack() as stack:
        folder = output if is_first() else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield stack.enter_context(Log(folder / _LOG, steps))


@contextlib.contextmanager
def _folder(output: Path) -> Iterator[None]:
    """Makes a folder; a failure that leaves nothing in it takes it away again."""
    made = [path for path in (output, *output.parents) if not path.exists()] if is_first() else []
    from_first(lambda: output.mkdir(parents=True, exist_ok=True))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        raise


def _require_finite(output: Path, config: TrainConfig, found: tuple[int, str] | None) -> None:
    """Stops a run that has diverged; `found` is the step and what of it is not finite."""
    if found is None:
        return
    step, what = found
    good = newest(output)
    left = "there is no checkpoint of it" if good is None else f"{output / 'checkpoints' / str(good)} is its last"
    raise Refused(
        f"{what} of step {step} is not finite: the run has diverged and is stopped; {left}. Every run of this "
        f"recipe would: choose a lower optimizer.peak_lr than {config.optimizer.peak_lr:g} or a longer warm-up, and "
        "another output"
    )
