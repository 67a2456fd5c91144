"""The bar of conversions: bytes, and the name of the tensor."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Column


@contextlib.contextmanager
def tensor_progress(doing: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields a callback of bytes done, bytes in all and a tensor's name; its first call shows the bar, on stderr."""
    name_column = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (BarColumn(bar_width=12), DownloadColumn(table_column=Column(no_wrap=True)), name_column)
    bar = Progress(TextColumn(doing), *columns, console=Console(stderr=True))
    task = bar.add_task("", total=None)
    with contextlib.ExitStack() as shown:

        def progress(done: int, total: int, name: str) -> None:
            if not bar.live.is_started:
                shown.enter_context(bar)
            bar.update(task, completed=done, total=total, description=name)

        yield progress
