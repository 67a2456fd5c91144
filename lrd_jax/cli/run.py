"""`lrd-jax run`: a file of prompts, a file of answers."""

import sys

from rich.console import Console

from lrd_jax.cli import INCOMPLETE
from lrd_jax.runs.options import Run
from lrd_jax.runs.shards import Shard, launched_shard, parse_shard


def run(options: Run) -> int:
    """How far it is and how it ended on standard error."""
    shard = _shard(options)
    if shard.said:
        print(f"note: {shard.said} makes this shard {shard}; --shard 0/1 answers all", file=sys.stderr)
    with Console(stderr=True).status(f"loading {options.model}"):
        from lrd_jax.cli.session import open_model
        from lrd_jax.presets import decoder
        from lrd_jax.runs.progress import progress
        from lrd_jax.runs.run import run as answer

        config = decoder(options)
    outcome = answer(options, config, shard, open_model=lambda look: open_model(options, look), watch=progress)
    errors = f", {outcome.wrong} of them errors" if outcome.wrong else ""
    if outcome.merged:
        print(f"{outcome.total} answers{errors}: {options.out / 'answers.jsonl'}", file=sys.stderr)
    else:
        words = f"{outcome.lines} answers{errors}; {outcome.done} of {outcome.total} are there, and the last shard"
        print(f"shard {shard}: {words} writes answers.jsonl", file=sys.stderr)
    return INCOMPLETE if outcome.wrong else 0


def _shard(options: Run) -> Shard:
    """What was asked for, or what a launcher says; processes that are one program answer all together."""
    from lrd_jax.pods.agreement import process_of

    if options.shard is not None:
        return parse_shard(options.shard)
    return launched_shard() if process_of() is None else Shard()
