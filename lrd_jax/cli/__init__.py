"""The command line. Each command's options are a dataclass; what it does is imported once it is known."""

import _thread
import dataclasses
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import tyro

from lrd_jax import __version__
from lrd_jax.cli.decoder_arguments import print_help, split
from lrd_jax.cli.options import Chat, Convert, Export, Generate, Train, Verify
from lrd_jax.errors import Refused
from lrd_jax.options import DecoderOptions
from lrd_jax.research.analyze.options import Analyze
from lrd_jax.research.benchmarks.options import Eval
from lrd_jax.research.calibrate.options import Calibrate
from lrd_jax.research.options import EvalTiny
from lrd_jax.research.reproduce.options import Reproduce
from lrd_jax.research.timing.options import Bench

INCOMPLETE, USER_ERROR, INTERRUPTED = 1, 2, 130

COMMANDS: dict[str, type] = {  # and the module of `lrd_jax.cli` that runs each
    "generate": Generate,
    "chat": Chat,
    "convert": Convert,
    "export": Export,
    "verify": Verify,
    "train": Train,
    "eval": Eval,
    "eval-tiny": EvalTiny,
    "bench": Bench,
    "reproduce": Reproduce,
    "calibrate": Calibrate,
    "analyze": Analyze,
}


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
        args = list(sys.argv[1:] if args is None else args)
        if args == ["--version"]:
            print(f"lrd-jax {__version__}")
            return 0
        options = _parsed(args)
        home = next(name for name, kind in COMMANDS.items() if type(options) is kind).replace("-", "_")
        return importlib.import_module(f"lrd_jax.cli.{home}").run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # an ordinary exit waits for what XLA is still compiling, or crashes in it
    except BrokenPipeError:  # who read our output has left; the flush at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INCOMPLETE
    except (Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    finally:
        sys.unraisablehook = hook


def _parsed(args: list[str]) -> Any:
    """The options of the command, with what the arguments change in its decoder.

    Raises:
      ValueError: an option that neither the command nor a decoder has.
      SystemExit: help was asked for, or tyro refuses the arguments.
    """
    command = COMMANDS.get(args[0]) if args else None
    decodes = command is not None and issubclass(command, DecoderOptions)
    changes: dict[str, str] = {}
    if command is not None:
        own = {field.name for field in dataclasses.fields(command)} - {"changes"}
        args, changes = split(args, own, decodes=decodes)
    try:
        options = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="lrd-jax",
            description="Latent Refinement Decoding for masked diffusion language models.",
            args=args,
        )
    except SystemExit as end:
        if decodes and end.code in (0, None):  # the help of the command is printed
            print_help()
        raise
    return dataclasses.replace(options, changes=changes) if decodes else options


def _keep_interrupt(dropped) -> None:
    """Python drops an exception raised inside a callback of the garbage collector; Ctrl-C must not get lost there."""
    if dropped.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(dropped)
