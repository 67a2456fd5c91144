"""What `lrd-jax eval-tiny` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path

from lrd_jax.errors import Refused
from lrd_jax.options import check_file, check_seed, check_types


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalTiny:
    """Measure decoders on held-out problems of the embedded models' tasks, with weights in float32.

    Attributes:
      models: embedded models, or folders trained on the same tasks.
      canvases: positions to generate; each is a column of the table.
      counts: problems a cell, one number a canvas.
      decoders: a set of decoders, a key of `lrd_jax.research.decoders.DECODER_SETS`.
      only: names within the set to run; all of them by default.
      batch: rows decoded together.
      seed: of the held-out problems.
      output: JSON-lines file that cells are appended to.
    """

    models: tuple[str, ...] = ("lrd-tiny", "lrd-tiny-soft")
    canvases: tuple[int, ...] = (64, 128, 256)
    counts: tuple[int, ...] = (1000, 200, 200)
    decoders: str = "table"
    only: tuple[str, ...] = ()
    batch: int = 50
    seed: int = 1
    output: Path = Path("eval-tiny.jsonl")

    def __post_init__(self):
        check_types(self)
        if len(self.counts) != len(self.canvases):
            raise Refused(f"counts={self.counts} must have one number for each of canvases={self.canvases}")
        for field in ("models", "canvases"):
            if not getattr(self, field):
                raise Refused(f"{field} must name at least one")
        for field in ("canvases", "counts", "batch"):
            values = getattr(self, field)
            if min(values if isinstance(values, tuple) else (values,)) < 1:
                raise Refused(f"{field}={values} must be at least 1")
        check_seed(self.seed)
        check_file(self.output, "output")
