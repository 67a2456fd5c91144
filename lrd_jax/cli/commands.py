"""The commands, and what a command line asks of them. Each command's options are a dataclass."""

import dataclasses
import os
import shutil
from typing import Any

import tyro

from lrd_jax.cli.decoder_arguments import print_help, split
from lrd_jax.cli.options import Chat, Convert, Export, Generate, Train, Verify
from lrd_jax.errors import Refused
from lrd_jax.options import Changes
from lrd_jax.plan.options import Plan
from lrd_jax.research.analyze.options import Analyze
from lrd_jax.research.benchmarks.options import Eval
from lrd_jax.research.calibrate.options import Calibrate
from lrd_jax.research.reproduce.options import Reproduce
from lrd_jax.research.timing.options import Bench
from lrd_jax.runs.options import Run
from lrd_jax.serve.options import Serve

_NARROWEST = 40  # columns

COMMANDS: dict[str, type] = {  # and the module of `lrd_jax.cli` that runs each
    "generate": Generate,
    "chat": Chat,
    "run": Run,
    "serve": Serve,
    "convert": Convert,
    "export": Export,
    "verify": Verify,
    "train": Train,
    "eval": Eval,
    "bench": Bench,
    "plan": Plan,
    "reproduce": Reproduce,
    "calibrate": Calibrate,
    "analyze": Analyze,
}


def parsed(args: list[str]) -> Any:
    """The options of a command, with what the arguments change in its decoder.

    Raises:
      ValueError: an option that neither the command nor a decoder has.
      SystemExit: help was asked for, or tyro refuses the arguments.
    """
    if args[:1] == ["eval-tiny"]:
        raise Refused("eval-tiny is a part of reproduce: lrd-jax reproduce --what table1, scan or caches")
    command = COMMANDS.get(args[0]) if args else None
    decodes = command is not None and issubclass(command, Changes)
    changes: dict[str, str] = {}
    if command is not None:
        own = {field.name for field in dataclasses.fields(command)} - {"changes"}
        args, changes = split(args, own, decodes=decodes)
    if shutil.get_terminal_size().columns < _NARROWEST:  # tyro never ends where it has no room for a word
        os.environ["COLUMNS"] = str(_NARROWEST)
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


def module_of(options: Any) -> str:
    """The module that runs what was asked for."""
    name = next(name for name, kind in COMMANDS.items() if type(options) is kind)
    return f"lrd_jax.cli.{name.replace('-', '_')}"
