"""`lrd-jax eval`: the paper's benchmarks."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lrd_jax.errors import Refused
from lrd_jax.research.benchmarks.options import Eval

if TYPE_CHECKING:
    from lrd_jax.research.benchmarks.trials import Trial

GOLD = "gold"


def run(options: Eval) -> int:
    """A line of each task as it is done on standard error, then the table on standard output."""
    with Console(stderr=True).status(f"loading {options.model}"):
        trials = trials_of(options)  # before anything is loaded: it refuses what cannot be
        try:
            from lrd_jax.research.benchmarks.evaluation import evaluate
        except ModuleNotFoundError as error:
            raise Refused(f"{error.name} is missing, which evaluations need: pip install 'lrd-jax[eval]'") from error
        from lrd_jax.checkpoint import load
        from lrd_jax.cli.compile_cache import use_compile_cache
        from lrd_jax.research.benchmarks.programs import Programs
        from lrd_jax.research.benchmarks.summary import markdown
        from lrd_jax.sharding import mesh_asked

        use_compile_cache()
        programs = Programs(unsafe=options.unsafe_code) if any(trial.asked.runs_code for trial in trials) else None
        loaded = None if options.model == GOLD else load(options.model, mesh_asked(options.mesh), trials[0].dtype)
        if loaded is not None and trials[0].chat and getattr(loaded.tokenizer, "chat_template", None) is None:
            raise Refused(
                f"{trials[0].checkpoint} is asked in chats, but {options.model} has no chat template: "
                "give the --settings of a base checkpoint"
            )
    rows = []
    for trial, summary, metrics in evaluate(
        trials, loaded, output=options.output, data=options.data, limit=options.limit, programs=programs
    ):
        rows.append((trial.name, summary))
        said = ", ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())
        print(f"{trial.name}: {100 * summary.accuracy:.1f} % right; lm-eval says {said}", file=sys.stderr)
    print(markdown(rows))
    return 0


def trials_of(options: Eval) -> "list[Trial]":
    """The trials that the options ask for.

    Raises:
      ValueError: unknown tasks or settings, or numbers that a decoder refuses.
    """
    from lrd_jax.checkpoint import find_model
    from lrd_jax.models.checkpoints import CHECKPOINTS
    from lrd_jax.presets import PAPER_BLOCK_LENGTHS, decoder
    from lrd_jax.research.benchmarks.benchmarks import BEGIN_TOKEN, checkpoint_behind, prompting
    from lrd_jax.research.benchmarks.trials import Trial

    checkpoint = options.settings
    if checkpoint is None:
        folder = Path(options.model) if options.model == GOLD else find_model(options.model)
        checkpoint = checkpoint_behind(options.model, folder)
    trials = []
    for benchmark in dict.fromkeys(name.strip() for name in options.tasks.split(",")):
        asked = prompting(checkpoint, benchmark)
        block = PAPER_BLOCK_LENGTHS.get(checkpoint, {}).get(benchmark)
        window = {} if block is None else {"block_length": block}
        trials.append(
            Trial(
                model=options.model,
                checkpoint=checkpoint,
                benchmark=benchmark,
                asked=asked,
                preset=options.preset,
                gen_length=options.gen_length,
                changes=dict(options.changes),
                config=None if options.model == GOLD else decoder(options, **window),
                chat=CHECKPOINTS[checkpoint].chat and options.model != GOLD,
                begin_token=checkpoint in BEGIN_TOKEN,
                batch=options.batch,
                seed=options.seed,
                dtype=options.dtype,
            )
        )
    return trials
