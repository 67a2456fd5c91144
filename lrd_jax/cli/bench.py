"""`lrd-jax bench`: how fast decoders are on this machine."""

import json
import sys

from rich.console import Console

from lrd_jax.cli import INCOMPLETE
from lrd_jax.research.timing.options import Bench

_PAPER_WIDTH = 120  # of tables that go to a file


def run(options: Bench) -> int:
    """Tables or JSON on standard output; the status says where a reference decodes other tokens."""
    with Console(stderr=True).status("starting") as status:
        from lrd_jax.cli.compile_cache import use_compile_cache
        from lrd_jax.research.timing import engine, report  # JAX takes seconds to import: the user waits in here
        from lrd_jax.research.timing.comparison import compare

        use_compile_cache()
        result = (engine.run if options.engine else compare)(options, say=status.update)
    if options.json:
        print(json.dumps(result), flush=True)
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _PAPER_WIDTH
        console.print((report.engine_tables if options.engine else report.tables)(result))
    differ = [] if options.engine else report.disagreements(result)
    for words in differ:
        print(words, file=sys.stderr)
    return INCOMPLETE if differ else 0
