"""The command line. What a command takes and does is imported once Ctrl-C during an import is caught."""

import contextlib
import importlib
import io
import logging
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence

from lrd_jax import __version__
from lrd_jax.errors import Refused

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's warnings are for those who write its partitioner
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell everybody where it keeps a cache of fonts

INCOMPLETE, USER_ERROR, INTERRUPTED = 1, 2, 130


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      args: command-line arguments; None: the process's own.

    Returns:
      The exit status: 0; 1 where an answer is incomplete; 2 for a mistake in what was asked, with one message on
      standard error; 130 after Ctrl-C. Anything else that goes wrong is a bug and keeps its traceback.
    """
    hook, sys.unraisablehook = sys.unraisablehook, _drop_interrupt
    with _interrupts() as seen:
        try:
            return _run(args)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or seen:  # some libraries make another error of it
                _end_interrupted()
            _drop_unwritten()
            if isinstance(error, BrokenPipeError):  # who read our output has left
                return INCOMPLETE
            if not isinstance(error, SystemExit):
                from lrd_jax.cli.pod import leave

                leave(error, _words(error), INCOMPLETE if _words(error) is None else USER_ERROR)
            if _words(error) is None:
                raise
            print(f"error: {_words(error)}", file=sys.stderr)
            return USER_ERROR
        finally:
            sys.unraisablehook = hook


def _run(args: Sequence[str] | None) -> int:
    _open_streams()
    from lrd_jax.cli.commands import module_of, parsed  # in here, where Ctrl-C is caught
    from lrd_jax.cli.pod import joined

    args = list(sys.argv[1:] if args is None else args)
    if any("\0" in arg for arg in args):
        raise Refused("an argument holds a NUL, which no name and no text may; leave it out")
    if args == ["--version"]:
        print(f"lrd-jax {__version__}")
        return 0
    options = parsed(args)
    with joined(options) as options:
        return importlib.import_module(module_of(options)).run(options)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yields what is not empty once Ctrl-C has been pressed.

    Compiled modules do not survive an exception from inside their import: they print it, or make another of it. So the
    process ends at once where all it does is to import, and later the import ends before it counts. Compiled code that
    calls Python may drop what comes out of the call, so it is asked again until the exception is on its way.
    """
    seen: list[int] = []
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield seen
        return
    again = threading.Timer(0, _interrupt_main_thread)

    def interrupt(number, frame):
        nonlocal again
        seen.append(number)
        import_began = _import_around(frame)
        if import_began is _run.__code__:  # nothing is done yet that would have to be undone
            _end_interrupted()
        again.cancel()
        again = threading.Timer(0.05, _interrupt_main_thread)
        again.daemon = True
        again.start()
        if import_began is None and not _is_on_its_way(sys.exc_info()[1]):
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        again.cancel()


def _interrupt_main_thread() -> None:
    """By a real signal, which wakes what waits in the kernel."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def _is_on_its_way(handled: BaseException | None) -> bool:
    """Whether what is being handled came of Ctrl-C: what cleans up then is not to be interrupted."""
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    return handled is not None


def _import_around(frame: types.FrameType | None) -> types.CodeType | None:
    """What began the outermost import below `_run` that is still going on; None where there is none."""
    began = None
    while frame is not None and frame.f_code is not _run.__code__:
        frame, inner = frame.f_back, frame
        if frame is not None and _imports(inner) and not _imports(frame):
            began = frame.f_code
    return began


def _imports(frame: types.FrameType) -> bool:
    code = frame.f_code
    return code.co_filename == "<frozen importlib._bootstrap>" or code is importlib.import_module.__code__


def _end_interrupted() -> None:
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # an ordinary exit waits for what XLA is still compiling, or crashes in it


def _missing_memory(error: BaseException) -> str | None:
    """What to say of memory that neither NumPy nor a device of JAX's had; None for other errors."""
    advice = "ask for less at a time: a smaller batch, fewer positions, or weights in bfloat16"
    if isinstance(error, MemoryError):
        return f"{error}; {advice}" if str(error) else advice
    said = (str(error).splitlines() or [""])[0]
    told = "RESOURCE_EXHAUSTED" in said or "Out of memory" in said  # a CPU tells the second, as INTERNAL
    if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and told:
        said = said.rpartition("RESOURCE_EXHAUSTED: ")[2].rpartition("dispatching computation: ")[2]
        return f"{said.rstrip('.')}; {advice}"
    return None


def _is_of_settings(error: BaseException) -> bool:
    """Whether JAX refused one of the variables named JAX_*, which it reads when it is imported."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    file = "" if place is None else place.tb_frame.f_code.co_filename
    return isinstance(error, ValueError) and file.endswith(os.path.join("jax", "_src", "config.py"))


def _words(error: BaseException) -> str | None:
    """An error's words, the system's are those of the file; None of what is no user's error."""
    if (missing := _missing_memory(error)) is not None:
        return f"not enough memory: {missing}"
    if _is_of_settings(error):
        return f"JAX does not take a setting of the environment: {str(error).splitlines()[0]}"
    if not isinstance(error, Refused | OSError):
        return None
    if isinstance(error, FileNotFoundError) and error.filename is None:  # what asks where it is does not say
        return "the folder that this runs in is gone; go to another one"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error)


def _open_streams() -> None:
    """Puts nothing in the place of streams that were closed, and question marks for what a locale cannot write.

    Raises:
      ValueError: standard output is closed: an answer would get lost, or into whatever file is opened next.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            if name == "stdout":
                raise Refused("standard output is closed; send it to a file, or to /dev/null")
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (it stays open)
    ours = sys.stderr is sys.__stderr__ and sys.stderr.fileno() == 2
    if ours and not isinstance(getattr(sys.stderr.buffer, "raw", None), _Unheard):
        raw = io.BufferedWriter(_Unheard(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)
        sys.__stderr__ = sys.stderr
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


def _drop_unwritten() -> None:
    """Standard output that takes no more must not complain once more when the process ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Unheard(io.FileIO):
    """Standard error whose reader may leave: what is told gets lost then, and the work goes on."""

    def write(self, b, /) -> int:
        try:
            return super().write(b)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(b)


def _drop_interrupt(dropped) -> None:
    """Python tells of an exception inside a callback of the garbage collector; of Ctrl-C's nobody needs to hear."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
