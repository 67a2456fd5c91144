"""`lrd-jax eval-tiny`: the table of decoders on the embedded models' tasks."""

import sys

from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.research.evaluate import markdown
from lrd_jax.research.evaluate import run as measure
from lrd_jax.research.options import EvalTiny


def run(options: EvalTiny) -> int:
    """Cells as they come on standard error, then the tables on standard output."""
    use_compile_cache()
    print(markdown(measure(options, report=report)))
    return 0


def report(cell: dict) -> None:
    """One line of a cell that was measured."""
    print(
        f"{cell['model']}, canvas {cell['canvas']}, {cell['decoder']}: {100 * cell['accuracy']:.1f} % right, "
        f"{cell['forwards']:.1f} forwards, {1000 * cell['seconds'] / cell['problems']:.1f} ms a problem",
        file=sys.stderr,
    )
