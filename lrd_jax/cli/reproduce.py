"""`lrd-jax reproduce`: the paper's tables and figures."""

import sys

from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.research.reproduce.options import Reproduce
from lrd_jax.research.reproduce.reproduction import missing, reproduce


def run(options: Reproduce) -> int:
    """Cells as they come on standard error, then the report's path; or the missing cells."""
    if options.plan:
        for model, one in missing(options):
            print(f"{model}, canvas {one.canvas}, {one.decoder}: {one.problems} problems")
        return 0
    use_compile_cache()
    print(reproduce(options, report=_report))
    return 0


def _report(cell: dict) -> None:
    """One line of a cell that was measured."""
    print(
        f"{cell['model']}, canvas {cell['canvas']}, {cell['decoder']}: {100 * cell['accuracy']:.1f} % right, "
        f"{cell['forwards']:.1f} forwards, {1000 * cell['seconds'] / cell['problems']:.1f} ms a problem",
        file=sys.stderr,
    )
