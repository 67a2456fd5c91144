"""The command line. Each command's options are a dataclass; what it does is imported once it is known."""

import _thread
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated

import tyro
from tyro.conf import subcommand

from lrd_jax.cli.options import Chat, Convert, Export, Generate, Train

INCOMPLETE, USER_ERROR, INTERRUPTED = 1, 2, 130

Command = (
    Annotated[Generate, subcommand("generate")]
    | Annotated[Chat, subcommand("chat")]
    | Annotated[Convert, subcommand("convert")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Train, subcommand("train")]
)


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      args: command-line arguments; None: the process's own.

    Returns:
      The exit status: 0; 1 where an answer is incomplete; 2 for a mistake in what was asked, with one message on
      standard error; 130 after Ctrl-C. Anything else that goes wrong is a bug and keeps its traceback.
    """
    hook, sys.unraisablehook = sys.unraisablehook, _keep_interrupt
    try:
        command = tyro.cli(Command, args=args, prog="lrd-jax", description=__doc__.splitlines()[0])
        home = importlib.import_module(f"lrd_jax.cli.{type(command).__name__.lower()}")
        return home.run(command)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # an ordinary exit waits for what XLA is still compiling, or crashes in it
    except BrokenPipeError:  # who read our output has left; the flush at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INCOMPLETE
    except (ValueError, OSError) as error:
        if not _is_message(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    finally:
        sys.unraisablehook = hook


def _keep_interrupt(dropped) -> None:
    """Python drops an exception raised inside a callback of the garbage collector; Ctrl-C must not get lost there."""
    if dropped.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(dropped)


def _is_message(error: ValueError | OSError) -> bool:
    """Whether an error speaks to the user: the system's about a file, or one that this package raised itself."""
    if isinstance(error, OSError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").split(".")[0] == "lrd_jax"
