"""`lrd-jax analyze`: the paper's open questions, measured on a model."""

from rich.console import Console

from lrd_jax.research.analyze.options import Analyze


def run(options: Analyze) -> int:
    """Progress on standard error, the files that were written on standard output."""
    console = Console(stderr=True, highlight=False)
    with console.status("starting"):
        from lrd_jax.cli.compile_cache import use_compile_cache
        from lrd_jax.research.analyze.analysis import analyze  # JAX takes seconds to import: the user waits in here

        use_compile_cache()
        for part in analyze(options, report=console.print):
            for kind in ("json", "md", "png"):
                print(options.output / f"{part}.{kind}", flush=True)
    return 0
