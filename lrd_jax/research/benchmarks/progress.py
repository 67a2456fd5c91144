"""How far a run is and how long it will take: a bar on a terminal, a line now and then elsewhere."""

import datetime
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lrd_jax.research.benchmarks.records import Record

_QUIET_SECONDS = 60  # between two lines where there is no terminal


class RunProgress:
    """A context manager whose call takes the records as they come, see `answer_all`."""

    def __init__(self, name: str, total: int, console: Console | None = None):
        self._console = Console(stderr=True) if console is None else console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._name, self._total = name, total
        self._task = self._bar.add_task(name, total=total, facts="")
        self._done = self._graded = self._right = 0

    def __enter__(self) -> Self:
        self._bar.start()
        self._began = self._spoke = time.monotonic()
        self._before = None
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def __call__(self, records: list[Record]) -> None:
        self._done += len(records)
        self._graded += sum(record.correct is not None for record in records)
        self._right += sum(bool(record.correct) for record in records)
        now = time.monotonic()
        if self._before is None:  # the first call may bring what an earlier run answered, and compiling
            self._before, self._began = self._done, now
        self._bar.update(self._task, completed=self._done, facts=self.facts(now))
        if not self._console.is_terminal and (self._done == self._total or now - self._spoke > _QUIET_SECONDS):
            self._spoke = now
            self._console.print(f"{self._name}: {self._done} of {self._total}, {self.facts(now)}", highlight=False)

    def facts(self, now: float) -> str:
        """Accuracy so far and time left, as far as they are known."""
        facts = [f"{100 * self._right / self._graded:.1f} % right"] if self._graded else []
        fresh = self._done - self._before
        if self._done == self._total:
            facts.append("done")
        elif fresh:
            left = (now - self._began) / fresh * (self._total - self._done)
            facts.append(f"{datetime.timedelta(seconds=round(left))} left")
        return ", ".join(facts)
