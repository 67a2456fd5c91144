"""How far a run is, and the time that is left: a bar where standard error is a terminal, and nothing elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def progress(name: str, done: int, total: int, console: Console | None = None) -> Iterator[Callable[[bool], None]]:
    """Yields what is called for every answer, with whether it is a good one.

    Args:
      done: answered before, of `total`.
    """
    console = Console(stderr=True) if console is None else console
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[errors]}"),
    )
    bar = Progress(TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal)
    task = bar.add_task(name, completed=done, total=total, errors="")
    wrong = 0

    def answered(good: bool) -> None:
        nonlocal wrong
        wrong += not good
        bar.update(task, advance=1, errors=f"{wrong} without an answer" if wrong else "")

    with bar:
        yield answered
