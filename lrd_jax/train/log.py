"""What a run tells while it goes: `log.jsonl`, one line every few steps, and a progress bar."""

import contextlib
import json
import time
from pathlib import Path
from typing import Self

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrd_jax.durable import append_lines, open_alone, whole_lines
from lrd_jax.errors import Refused


class Log:
    """A JSON line and a progress bar every few steps; its file is the lock of the run's folder."""

    def __init__(self, path: Path, steps: int):
        self._path, self._steps = path, steps

    def __enter__(self) -> Self:
        """Opens or creates the file.

        Raises:
          ValueError: another run writes there.
        """
        self._file = open_alone(self._path)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        return self

    def __exit__(self, *error) -> None:
        if self._bar.live.is_started:  # else its end would be told by an empty line
            self._bar.stop()
        with contextlib.suppress(OSError):  # of a full disk, which has been told
            self._file.close()
        if error[0] is not None and not self._path.stat().st_size:
            self._path.unlink()

    def start(self, step: int) -> None:
        """Drops lines after the step that a run resumes from, and what a kill left of a line, and shows the bar.

        Raises:
          ValueError: a line that is none of a log.
        """
        kept = 0
        for number, line in whole_lines(self._file):
            if self._step_of(number, line) > step:
                break
            kept += len(line) + 1
        self._file.truncate(kept)
        self._task = self._bar.add_task("training", total=self._steps, completed=step, facts="")
        self._bar.start()
        self._reset()

    def add(self, loss: jax.Array, tokens: int) -> None:
        self._losses.append(loss)  # still being computed: reading it here would wait for the device
        self._tokens += tokens

    def first_not_finite(self, step: int) -> tuple[int, str] | None:
        """The first step since the last line whose loss is not finite, and what it is; `step` is the newest."""
        bad = np.flatnonzero(~np.isfinite(np.asarray(self._losses, np.float32)))
        return (step - len(self._losses) + 1 + int(bad[0]), "the loss") if bad.size else None

    def write(self, step: int) -> None:
        loss = float(np.mean(np.asarray(self._losses, np.float32)))
        speed = self._tokens / (time.perf_counter() - self._since)
        append_lines(self._file, [{"step": step, "loss": loss, "tokens_per_second": round(speed)}])
        self._bar.update(self._task, completed=step, facts=f"loss {loss:.4f}  {speed:,.0f} tokens/s")
        self._reset()

    def _step_of(self, number: int, line: bytes) -> int:
        try:
            step = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError):
            step = None
        if type(step) is not int:
            raise Refused(f"{self._path}, line {number} is no line of a log; take it out")
        return step

    def _reset(self) -> None:
        self._losses, self._tokens, self._since = [], 0, time.perf_counter()
