"""What a forward costs under each decoder, in turns: a cell's own wall time also holds what else the machine did."""

import functools
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.loop import Decoder, make_decode
from lrd_jax.decoding.state import DecodeState
from lrd_jax.pods import fetch
from lrd_jax.research.cells import open_model
from lrd_jax.research.decoders import Decoders
from lrd_jax.research.questions import Question, Source
from lrd_jax.research.results import Results
from lrd_jax.research.timing.measure import in_turns
from lrd_jax.text import encode_prompts, pad_to_bucket

ROUNDS = 5
FORWARDS = 4  # timed at most, from the start of a decode


def times_of(path: Path) -> dict[tuple[str, int, str | None], dict[str, float]]:
    """By model, canvas and dtype: milliseconds of a forward of one row, by decoder; of a file that `time_all` wrote."""
    return {key: line["milliseconds"] for key, line in _lines_of(path).read().held.items()}


def _lines_of(path: Path) -> Results[dict]:
    return Results(path, lambda line: (line["model"], line["canvas"], line.get("dtype")))


def time_all(
    model_name: str,
    decoders: Decoders,
    problems: dict[int, int],
    *,
    output: Path,
    source: Source,
    batch: int,
    seed: int,
    context: int | None,
    dtype: str | None,
    mesh: str | None,
) -> None:
    """Times the decoders on every canvas that `output` does not hold yet, and appends one line each.

    Args:
      problems: how many a canvas is asked; a batch holds no more.
    """
    left = [canvas for canvas in problems if (model_name, canvas, dtype) not in times_of(output)]
    if not left or not decoders:
        return
    loaded = open_model(model_name, context, dtype, mesh)
    for canvas in left:
        questions = source(min(batch, problems[canvas]), seed, canvas, loaded.tokenizer)
        found = time_forwards(loaded, decoders, canvas, questions)
        line = {"model": model_name, "canvas": canvas, "batch": len(questions), "rounds": ROUNDS, "milliseconds": found}
        line |= {} if dtype is None else {"dtype": dtype}
        with _lines_of(output) as lines:
            lines.append([line])


def time_forwards(loaded: Loaded, decoders: Decoders, canvas: int, questions: list[Question]) -> dict[str, float]:
    """Milliseconds of a forward of one row in a batch of these questions: the median of rounds that take turns.

    The bare decoder advances by the same few forwards each round: no decode ends here, and nothing else is timed.
    """
    prompts = encode_prompts(loaded.tokenizer, [question.prompt for question in questions], chat=False)
    prompt, mask = pad_to_bucket(*prompts, loaded.config.max_length - canvas)
    runs, forwards = {}, {}
    for name, make in decoders.items():
        decode = make_decode(loaded.model, make(canvas))
        key = None if decode.config.draws is False else jax.random.key(0)
        state = decode.start(loaded.params, prompt, mask, key)
        runs[name] = functools.partial(_advanced, decode, loaded.params, state)
        forwards[name] = int(fetch(runs[name]().forwards).max())
    return {
        name: 1000 * statistics.median(seconds) / forwards[name] / len(questions)
        for name, seconds in in_turns(runs, ROUNDS).items()
    }


def _advanced(decode: Decoder, params, state: DecodeState) -> DecodeState:
    """The state after `FORWARDS` more; the one given is kept."""
    return decode.advance(params, jax.tree.map(jnp.copy, state), FORWARDS)
