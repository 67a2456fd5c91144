"""`lrd-jax reproduce`: the paper's tables and figures."""

from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.cli.eval_tiny import report
from lrd_jax.research.reproduce.options import Reproduce
from lrd_jax.research.reproduce.run import missing
from lrd_jax.research.reproduce.run import run as reproduce


def run(options: Reproduce) -> int:
    """Cells as they come on standard error, then the report's path; or the missing cells."""
    if options.plan:
        for model, one in missing(options):
            print(f"{model}, canvas {one.canvas}, {one.decoder}: {one.problems} problems")
        return 0
    use_compile_cache()
    print(reproduce(options, report=report))
    return 0
