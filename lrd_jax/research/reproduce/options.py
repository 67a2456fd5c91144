"""What `lrd-jax reproduce` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lrd_jax.errors import Refused
from lrd_jax.files import require_file
from lrd_jax.options import STORED_DTYPE, OnMesh, Yours, check_folder, check_seed

PAPER = ("table1", "table2", "table3", "table4", "figure2", "figure3", "figure4", "figure5", "front")
WHAT = (*PAPER, "scan", "caches")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Yours, OnMesh):
    """Measure what the paper's tables and figures show, and what belongs beside it; write tables and pictures.

    Attributes:
      model: embedded models, converted folders or Hugging Face folders.
      dtype: of the weights.
      what: table1 to table4, figure2 to figure5, and front, accuracy against forwards; scan, of LRD's stops, guards,
        r_f and commits, and caches; with spaces or commas between.
      tasks: words, code, sudoku4 and sudoku6, held-out problems; or gsm8k, math500, humaneval and mbpp, asked as
        lrd-jax eval asks them; with spaces or commas between.
      canvases: positions to generate.
      counts: problems a cell, one number a canvas.
      replayed: problems whose decode is seen again step by step, for figure2, figure4 and figure5.
      only: names of decoders to measure, * for any part of one; all by default. Yours is measured whatever they are.
      preset: of a decoder of yours, to measure beside those; it is lrd where only changes are given.
      cells: cells.jsonl of other runs, that are taken over and not run again.
      context: prompt + canvas to decode where the model's own limit is lower; nothing was trained there.
      batch: rows decoded together.
      seed: of the problems.
      data: folder of the benchmarks as JSON lines.
      settings: whose shots and chats: llada-8b-base or -instruct, llada-1.5, dream-7b-base or -instruct.
      unsafe_code: where there is no sandbox, run generated programs with your rights.
      output: folder of results, report and pictures; the cells that it holds are not run again.
      plan: name the cells that are missing, and stop.
      redraw: draw what the folder holds, and run nothing.
    """

    model: tuple[str, ...] = ("lrd-tiny-soft",)
    dtype: Annotated[str | None, STORED_DTYPE] = None
    what: tuple[str, ...] = PAPER
    tasks: tuple[str, ...] = ("words", "code")
    canvases: tuple[int, ...] = (64,)
    counts: tuple[int, ...] = (1000,)
    replayed: int = 100
    only: tuple[str, ...] = ("*",)
    cells: tuple[Path, ...] = ()
    context: Annotated[int | None, arg(help_behavior_hint="(default: the model's)", metavar="TOKENS")] = None
    batch: int = 50
    seed: int = 1
    data: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: the hub)")] = None
    settings: Annotated[
        str | None, arg(metavar="CHECKPOINT", help_behavior_hint="(default: what each model was converted from)")
    ] = None
    unsafe_code: bool = False
    output: Path = Path("reproduction")
    plan: bool = False
    redraw: bool = False

    def __post_init__(self):
        super().__post_init__()
        for field in ("what", "tasks"):
            names = tuple(name for part in getattr(self, field) for name in part.split(",") if name)
            object.__setattr__(self, field, names)
        for field in ("model", "what", "canvases"):
            if not (given := getattr(self, field)) or len(set(given)) < len(given):
                raise Refused(f"{field}={', '.join(map(str, given)) or 'none'}: name one or more, each once")
        if unknown := set(self.what) - set(WHAT):
            raise Refused(f"what={', '.join(sorted(unknown))} is unknown; choose of {', '.join(WHAT)}")
        if len(self.counts) != len(self.canvases):
            raise Refused(f"counts={self.counts} must have one number for each of canvases={self.canvases}")
        for field in ("canvases", "counts", "replayed", "batch"):
            values = getattr(self, field)
            if min(values if isinstance(values, tuple) else (values,), default=0) < 1:
                raise Refused(f"{field}={values} must be at least 1")
        if self.context is not None and self.context < 1:
            raise Refused(f"context={self.context} must be at least 1")
        check_seed(self.seed)
        check_folder(self.output, "output")
        if self.data is not None and not self.data.is_dir():
            raise Refused(f"data={self.data}: there is no such folder; give one of the benchmarks as JSON lines")
        if "gen_length" in self.changes:
            raise Refused("gen_length is that of every decoder here: name it with --canvases")
        if self.plan and self.redraw:
            raise Refused("plan names what would be run and redraw runs nothing; give one of them")
        for path in self.cells:
            require_file(path, "give the cells.jsonl of another run")
        if absent := [str(path) for path in self.cells if not path.exists()]:
            raise Refused(f"cells={', '.join(absent)}: no such file; give the cells.jsonl of another run")
