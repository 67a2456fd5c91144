"""Checkpoints of a run: `checkpoints/<step>` under its output folder by Orbax, the last two of them.

`<step>.json` beside each is written last: the run's config, and the hash of every file. A checkpoint without it was
never finished and is passed over; one whose files do not match is damaged, and the one before it is taken.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from lrd_jax import toml
from lrd_jax.durable import write_whole
from lrd_jax.errors import Refused
from lrd_jax.pods import from_first, is_first, place
from lrd_jax.train.config import TrainConfig
from lrd_jax.train.step import TrainState

_MAY_CHANGE = ("output", "checkpoint_every", "log_every", "mesh", "dtype")  # the rest decides the numbers


def save(output: Path, config: TrainConfig, state: TrainState, *, base: str | None = None) -> None:
    """Writes the state, its config and its hashes; of the checkpoints before, the newest stays.

    Args:
      base: the fingerprint of the weights that a run of adapters stands beside; they are not written.

    Raises:
      ValueError: they could not be written, on a full disk for one; nothing of them is left then.
    """
    folder, step = output / "checkpoints", int(state.step)
    earlier = from_first(lambda: newest(output, below=step))
    from_first(lambda: _clear(folder, keep=earlier))
    tree = {"params": state.params, "opt_state": state.opt_state}
    with resumable(f"the checkpoint of step {step}", folder, earlier):
        try:
            from_first(lambda: require_room(folder, sum(leaf.nbytes for leaf in jax.tree.leaves(tree))))
            with _quiet():
                ocp.save(folder / str(step), tree)
            from_first(lambda: _finish(folder, step, config, base))
        except BaseException:
            if is_first():
                _clear(folder, keep=earlier)
            raise


def _finish(folder: Path, step: int, config: TrainConfig, base: str | None) -> None:
    content = {"train_config": config.to_json(), "base": base, "sha256": _hashes(folder / str(step))}
    write_whole(folder / f"{step}.json", json.dumps(content, indent=1) + "\n")


def restore(output: Path, config: TrainConfig, abstract: TrainState, *, base: str | None = None) -> TrainState | None:
    """The newest checkpoint whose files are whole, placed as `abstract` says; None where the run has none.

    Args:
      base: see `save`.

    Raises:
      ValueError: the checkpoint is of another run, which differs in the named fields; of adapters, it stands beside
        other weights; or every one is damaged.
    """
    folder = output / "checkpoints"
    step = from_first(lambda: _newest_whole(folder, config, base))
    if step is None:
        return None
    try:
        with _any_vocabulary():
            tree = ocp.load(folder / str(step), {"params": abstract.params, "opt_state": abstract.opt_state})
    except ValueError as error:  # whole, but made by other code
        raise Refused(f"checkpoint {folder / str(step)} does not fit the model ({error}); delete it") from error
    return TrainState(step=place(np.int32(step), abstract.step.sharding), **tree)


def _newest_whole(folder: Path, config: TrainConfig, base: str | None) -> int | None:
    """The step of the newest checkpoint whose files are whole; errors are those of `restore`."""
    damaged = []
    for step in reversed(_steps(folder)):
        try:
            saved, saved_base = _verified(folder, step)
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"checkpoint {folder / str(step)} is damaged ({error})")
            continue
        _require_same_run(folder / str(step), saved, config)
        if saved_base != base:
            raise Refused(
                f"{folder / str(step)} stands beside other weights than those in init={config.init} now: put back "
                "those that the run began with, or choose another output"
            )
        if damaged:
            print(f"note: {'; '.join(damaged)}; going on from step {step}", file=sys.stderr)
        return step
    if damaged:
        raise Refused(f"{'; '.join(damaged)}; none before it is left: delete {folder} to begin anew")
    return None


def newest(output: Path, below: int = sys.maxsize) -> int | None:
    """The step of the newest finished checkpoint before step `below`."""
    return max((step for step in _steps(output / "checkpoints") if step < below), default=None)


@contextlib.contextmanager
def resumable(what: str, where: Path, step: int | None) -> Iterator[None]:
    """Turns what goes wrong in writing `what` into one message: why, and that the run goes on from `step`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        full = "no space left on device" in str(error).lower()
        reason = "no space is left on the device" if full else str(error).split(" [tensorstore_spec")[0][:300]
        start = "from the start" if step is None else f"from step {step}"
        raise Refused(
            f"{what} could not be written to {where}: {reason}; put that right and give the same command again, "
            f"it goes on {start}"
        ) from error


def require_room(folder: Path, wanted: int) -> None:
    """Raises OSError where the disk that a folder is on, or will be, has less than `wanted` bytes."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < wanted:
        raise OSError(f"it takes {wanted / 2**20:,.1f} MiB, and {free / 2**20:,.1f} are free")


def _steps(folder: Path) -> list[int]:
    """Finished checkpoints, damaged ones too."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())


def _clear(folder: Path, keep: int | None) -> None:
    """Takes away every checkpoint but one, what kills have left of others, and the folder itself if it is empty."""
    kept = set() if keep is None else {str(keep), f"{keep}.json"}
    found = [path for path in folder.glob("*") if path.name.split(".")[0].isdigit() and path.name not in kept]
    for path in sorted(found, key=Path.is_dir):  # a checkpoint stops being one before its files go
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            hashes[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _verified(folder: Path, step: int) -> tuple[dict[str, Any], str | None]:
    """The config that a checkpoint was saved with, and the fingerprint of its base.

    Raises:
      ValueError: a file of it is lost or not as it was written.
    """
    content = json.loads((folder / f"{step}.json").read_text())
    written, found = content["sha256"], _hashes(folder / str(step))
    if lost := written.keys() - found.keys():
        raise Refused(f"{min(lost)} is lost")
    if changed := [name for name in written if written[name] != found[name]]:
        raise Refused(f"{changed[0]} is not as it was written")
    return content["train_config"], content.get("base")


def _require_same_run(path: Path, saved: dict[str, Any], config: TrainConfig) -> None:
    with contextlib.suppress(toml.Problems):  # fields that came later get the values that they had before
        saved = toml.build(TrainConfig, saved).to_json()
    wanted = {name: value for name, value in config.to_json().items() if name not in _MAY_CHANGE}
    if differ := list(_differing({name: saved.get(name) for name in wanted}, wanted)):
        changes = "; ".join(f"{name}: {there!r:.80} there, {asked!r:.80} asked for" for name, there, asked in differ)
        raise Refused(f"{path} is of another run ({changes}); resume with its config or choose another output")


def _differing(saved: dict[str, Any], wanted: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields of two configs that differ, by dotted names, with both values."""
    for name in saved | wanted:
        there, asked = saved.get(name), wanted.get(name)
        if isinstance(there, dict) and isinstance(asked, dict):
            yield from _differing(there, asked, f"{above}{name}.")
        elif there != asked:
            yield f"{above}{name}", there, asked


def _any_vocabulary() -> ocp.Context:
    """The mesh of a run may change, and with it the zeros behind the vocabulary: see `lrd_jax.models.padding`."""
    context = ocp.Context()
    context.array.loading.enable_padding_and_truncation = True
    return context


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the tracebacks that Orbax's threads log away from standard error; the error itself is raised as well."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
