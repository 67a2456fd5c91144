"""A command as one of several processes: all run it, process 0 prints and writes, and none is left waiting.

The others read and write in a folder of their own, which begins as a copy of what process 0 finds in the place of the
output and is thrown away: a command that goes on where it was cut short goes on alike everywhere.
"""

import base64
import contextlib
import dataclasses
import io
import os
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lrd_jax.options import Processes

if TYPE_CHECKING:
    from lrd_jax.pods.agreement import PeerFailed

_OUTPUTS = ("output", "picture")  # fields of options that name what a command writes
_SAME = ("coordinator", "num_processes", "process_id", *_OUTPUTS)  # may differ between processes
_LEAVING_SECONDS = 4.0  # longest wait of a process that failed for others that fail too
_HEARD_SECONDS = 1.5  # longest wait of one that hears of a failure for others that hear of it


@contextlib.contextmanager
def joined(options: Any) -> Iterator[Any]:
    """Joins this process to the others of its program, if there are any; yields the options that it is to run with.

    Raises:
      ValueError: see `lrd_jax.pods.connect`; or the processes were asked for different things.
    """
    from lrd_jax.pods import agree, connect, is_first
    from lrd_jax.pods.agreement import process_of
    from lrd_jax.pods.watching import watched

    asked = options if isinstance(options, Processes) else Processes()
    connect(asked.coordinator, asked.num_processes, asked.process_id)
    command = type(options).__name__.lower()
    facts = {name: value for name, value in vars(options).items() if name not in _SAME}
    agree("command lines", {"command": command, **facts})
    places = _told_places(options)
    if process_of() is not None:
        _keep_stdout_ours()
    with contextlib.ExitStack() as stack:
        stack.enter_context(watched(_lost))
        if is_first():
            yield options
            return
        silence = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(silence))
        stack.enter_context(contextlib.redirect_stderr(silence))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lrd-jax-")))
        yield _aside(options, folder, places)


def _lost(failure: "PeerFailed") -> None:
    """Ends this process from the thread that heard of it; the others hear of it too."""
    print(f"error: {failure}", file=sys.__stderr__, flush=True)
    _go(failure.status, _HEARD_SECONDS if failure.told else 0.0)


def first_alone(doing: str, work: Callable[[], Any]) -> Any:
    """What `work` gives on process 0, which does it alone while the others wait and say so.

    Raises:
      ValueError: on every process, what `work` refuses.
    """
    from lrd_jax.pods import from_first, is_first
    from lrd_jax.pods.agreement import process_of

    if process_of() is not None:
        import jax

        jax.local_devices()  # processes find their devices together: process 0 may need one, and waits for the others'
    if not is_first():
        print(f"waiting for process 0, which is {doing}", file=sys.__stderr__, flush=True)
    return from_first(work)


def leave(error: BaseException, words: str | None, status: int) -> None:
    """Ends a process among several that failed, at once, and those that wait for it hear why; does nothing alone.

    An ordinary exit would wait for the others, which may wait for this one inside a program.

    Args:
      words: of the error, for people; None where a traceback tells more.
    """
    agreement = sys.modules.get("lrd_jax.pods.agreement")  # not imported: not connected
    process = None if agreement is None else agreement.process_of()
    if process is None:
        return
    if words is None and _is_lost_peer(error):
        words = f"another process is gone ({str(error).splitlines()[0][:200]})"
    if words is None:
        traceback.print_exception(error)
        words = repr(error)
    else:
        print(f"error: {'' if process == 0 else f'process {process}: '}{words}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    status = getattr(error, "status", status)  # of a peer that failed
    agreement.tell_failure(agreement.Failure(words, status))
    _go(status, _LEAVING_SECONDS)


def _go(status: int, patience: float) -> NoReturn:
    """Ends this process once the others have come as far, or do not come; process 0, with which all end, after them."""
    from lrd_jax.pods.agreement import is_first, meet

    if patience:
        meet("leaving", patience)
    if is_first():
        time.sleep(1.0)
    os._exit(status)


def _keep_stdout_ours() -> None:
    """Standard output stays with Python: the library by which CPU processes talk prints there too."""
    if sys.stdout.fileno() != 1:
        return
    sys.stdout.flush()
    sys.stdout = open(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)


def _is_lost_peer(error: BaseException) -> bool:
    from jax.errors import JaxRuntimeError

    signs = ("gloo", "connection", "unavailable", "heartbeat", "task")
    return isinstance(error, JaxRuntimeError) and any(sign in str(error).lower() for sign in signs)


def _told_places(options: Any) -> dict[str, str | None]:
    """What process 0 finds at its outputs: their files, packed; None where there is nothing."""
    from lrd_jax.pods import from_first
    from lrd_jax.pods.agreement import process_of

    if process_of() is None:
        return {}
    paths = {name: path for name in _OUTPUTS if isinstance(path := getattr(options, name, None), Path)}
    return from_first(lambda: {name: _packed(path) for name, path in paths.items()})


def _packed(path: Path) -> str | None:
    if not (path.is_file() or path.is_dir()):
        return None
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as packed:
        packed.add(path, arcname=path.name)
    return base64.b64encode(data.getvalue()).decode()


def _aside(options: Any, folder: Path, places: dict[str, str | None]) -> Any:
    """The options with outputs inside `folder`."""
    changed = {}
    for name, packed in places.items():
        (folder / name).mkdir()
        changed[name] = folder / name / getattr(options, name).name
        if packed is not None:
            with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as files:
                files.extractall(folder / name, filter="data")
    return dataclasses.replace(options, **changed) if changed else options
