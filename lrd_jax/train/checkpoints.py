"""Checkpoints of a run: `checkpoints/<step>` under its output folder, written whole or not at all by Orbax."""

import shutil
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from lrd_jax.train.config import TrainConfig
from lrd_jax.train.step import TrainState

_MAY_CHANGE = ("output", "checkpoint_every", "log_every", "mesh", "dtype")  # the rest decides the numbers


def save(output: Path, config: TrainConfig, state: TrainState) -> None:
    """Writes the state and its config, then deletes the checkpoints before it."""
    folder, step = output / "checkpoints", int(state.step)
    tree = {"params": state.params, "opt_state": state.opt_state}
    ocp.save(folder / str(step), tree, custom_metadata={"train_config": config.to_json()})
    for earlier in _steps(folder):
        if earlier < step:
            shutil.rmtree(folder / str(earlier))


def restore(output: Path, config: TrainConfig, state: TrainState) -> TrainState:
    """The newest checkpoint, placed as `state` is; `state` itself where there is none.

    Raises:
      ValueError: the checkpoint is of another run, which differs in the named fields.
    """
    folder = output / "checkpoints"
    steps = _steps(folder)
    if not steps:
        return state
    path = folder / str(steps[-1])
    _check_same_run(path, config)
    current = {"params": state.params, "opt_state": state.opt_state}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), current)
    step = jax.device_put(np.int32(steps[-1]), state.step.sharding)
    return TrainState(step=step, **ocp.load(path, abstract))


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def _check_same_run(path: Path, config: TrainConfig) -> None:
    saved = ocp.metadata(path).custom_metadata["train_config"]
    wanted = config.to_json()
    differ = [name for name in wanted if name not in _MAY_CHANGE and saved.get(name) != wanted[name]]
    if differ:
        changes = "; ".join(f"{name}: {saved.get(name)!r} there, {wanted[name]!r} asked for" for name in differ)
        raise ValueError(f"{path} is of another run ({changes}); resume with its config or choose another output")
