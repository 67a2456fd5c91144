"""Accuracy against forwards: decoders on the questions of some tasks, the embedded models' held-out problems at first.

One cell is one (model, canvas, decoder, number of problems, seed, tasks, dtype). A decoder is its name in tables and
its config, in the text form. Cells are appended to a JSON-lines file as they come, and a cell that is there already is
not run again, so that a run which was cut short goes on; where a name comes to mean another config, its cells are no
longer there. A cell holds, beside what it is of: accuracy with its 95 % Wilson interval (low, high), by group as
[right, asked] (grades), and one 0 or 1 a problem (right), in the same order for all decoders of a model, canvas,
number, seed and tasks; means of a problem of forwards, refine_forwards and effective_tokens (those before the end of
the text); seconds, of all problems; stop_reasons; and where they were asked for, refinements, how many took so many
forwards, and steps, a `lrd_jax.research.replay.summary`. Cells without a list of tasks are of words and code, those
without a dtype of the one that a model is loaded with where none is named.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lrd_jax.answer import Answer
from lrd_jax.batching import batches
from lrd_jax.checkpoint import Loaded, load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import from_table, to_table
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator
from lrd_jax.models import Model
from lrd_jax.research.questions import Question, Source, source_of
from lrd_jax.research.replay import replay, summary
from lrd_jax.research.results import Results
from lrd_jax.research.statistics import wilson
from lrd_jax.sharding import mesh_asked
from lrd_jax.text import encode_prompts, pad_to_bucket

TASKS_BY_DEFAULT = ("words", "code")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """One cell of a model that is wanted.

    Attributes:
      decoder, make: its name, and the config for a canvas.
      canvas: positions to generate.
      problems: how many.
      needs: fields that the cell must hold, of those which cost more to measure: "refinements" and "steps".
    """

    decoder: str
    make: Callable[[int], DecodeConfig]
    canvas: int
    problems: int
    needs: tuple[str, ...] = ()

    def cell(self, model: str, *, seed: int, tasks: tuple[str, ...], dtype: str | None) -> dict[str, Any]:
        """What the cell is of."""
        cell = {"model": model, "canvas": self.canvas, "decoder": self.decoder}
        cell |= {"config": to_table(self.make(self.canvas)), "problems": self.problems, "seed": seed}
        return cell | {"tasks": list(tasks)} | ({} if dtype is None else {"dtype": dtype})

    def is_held(self, cell: dict | None) -> bool:
        """Whether a cell of the same key, None if there is none, is all that is wanted."""
        return cell is not None and set(self.needs) <= set(cell)


def measure(
    model_name: str,
    wanted: Iterable[Wanted],
    *,
    output: Path,
    tasks: tuple[str, ...] = TASKS_BY_DEFAULT,
    source: Source | None = None,
    batch: int = 50,
    seed: int = 1,
    context: int | None = None,
    dtype: str | None = None,
    mesh: str | None = None,
    report: Callable[[dict], None] = lambda cell: None,
) -> list[dict]:
    """The wanted cells of one model: those that `output` holds are read, the others measured and appended.

    The model is loaded once a cell is missing.

    Args:
      tasks: what the questions are of.
      source: gives the questions; None: `lrd_jax.research.questions.source_of` the tasks.
      batch: rows decoded together.
      seed: of the questions, and of the draws of decoders that draw.
      context: prompt + canvas that may be decoded where it is more than the model's own limit.
      dtype: of the weights; None: the one that `lrd_jax.load` gives.
      mesh: that the model lies on, as a command's `--mesh` names it.
      report: called with every cell that was measured.
    """
    loaded, cells = None, []
    ask = functools.cache(source or source_of(tasks))  # decoders are asked the same, and some sources are slow
    with cells_in(output) as results:
        for one in wanted:
            cell = one.cell(model_name, seed=seed, tasks=tasks, dtype=dtype)
            key = cell_key(cell)
            if not one.is_held(results.held.get(key)):
                loaded = loaded or open_model(model_name, context, dtype, mesh)
                config = one.make(one.canvas)
                generator = Generator(loaded, config.replace(trace=True) if one.needs else config, batch=batch)
                asked = ask(one.problems, seed, one.canvas, loaded.tokenizer)
                results.append([cell | _measure(generator, asked, seed, replayed="steps" in one.needs)])
                report(results.held[key])
            cells.append(results.held[key])
    return cells


def cells_in(path: Path) -> Results[dict]:
    """The cells of a results file; a line may be of any model."""
    return Results(path, cell_key)


def cell_key(cell: dict) -> tuple:
    """What a cell is of; cells of equal keys measure the same, and the newer counts."""
    of = tuple(cell[field] for field in ("model", "canvas", "decoder", "problems", "seed"))
    return (*of, tuple(cell.get("tasks", TASKS_BY_DEFAULT)), cell.get("dtype"), config_key(cell))


def config_key(cell: dict) -> str | None:
    """A cell's config as one text, with the fields that it leaves at their defaults; None where it has none."""
    return _whole(json.dumps(cell["config"])) if "config" in cell else None


@functools.cache
def _whole(config: str) -> str:
    return json.dumps(to_table(from_table(json.loads(config))), sort_keys=True)


def open_model(name: str, context: int | None = None, dtype: str | None = None, mesh: str | None = None) -> Loaded:
    """The model; `context`, `dtype` and `mesh` as in `measure`."""
    loaded = load(name, mesh_asked(mesh), dtype)
    if loaded.tokenizer is None:
        raise Refused(f"{name} has no tokenizer; copy tokenizer.json there from the model's release")
    config = loaded.config
    if context is not None and context > config.max_length:  # rotary positions go on; nothing was trained there
        loaded = dataclasses.replace(loaded, model=Model(dataclasses.replace(config, max_length=context)))
    return loaded


def _measure(generator: Generator, questions: list[Question], seed: int, *, replayed: bool) -> dict[str, Any]:
    """Decodes all questions; wall time leaves out compiling, padding rows, replays and turning tokens into text."""
    tokenizer = generator.loaded.tokenizer
    questions = sorted(questions, key=lambda q: len(tokenizer(q.prompt)["input_ids"]))
    draws = seed if generator.config.draws is not False else None
    answers = generator.generate([question.prompt for question in questions], seed=draws)
    checks = [question.check(answer.text) for question, answer in zip(questions, answers, strict=True)]
    right = collections.defaultdict(list)
    for question, ok in zip(questions, checks, strict=True):
        right[question.group].append(ok)
    low, high = wilson(sum(checks), len(checks))
    cell = {
        "accuracy": sum(checks) / len(checks),
        "low": low,
        "high": high,
        "forwards": float(np.mean([answer.forwards for answer in answers])),
        "refine_forwards": float(np.mean([answer.refine_forwards for answer in answers])),
        "effective_tokens": float(np.mean([len(answer.tokens) for answer in answers])),
        "seconds": sum(answer.seconds for answer in answers),
        "stop_reasons": dict(collections.Counter(answer.stop_reason.replace("-", "_") for answer in answers)),
        "right": "".join(str(int(ok)) for ok in checks),
        "grades": {group: [sum(oks), len(oks)] for group, oks in sorted(right.items())},
    }
    if generator.config.trace:
        lengths = collections.Counter()
        if generator.config.refine is not None:
            lengths.update(refinement_lengths(np.stack([answer.trace.refining for answer in answers])))
        cell["refinements"] = {str(length): count for length, count in sorted(lengths.items())}
    if replayed:
        cell["steps"] = summary(list(_replays(generator, questions, answers)))
    return cell


def _replays(generator: Generator, questions: list[Question], answers: list[Answer]) -> Iterator[dict[str, np.ndarray]]:
    """A `replay` a batch: forwards are watched, which no `Generator` does."""
    loaded = generator.loaded
    for part, count in batches(list(zip(questions, answers, strict=True)), generator.batch):
        prompt, mask = encode_prompts(loaded.tokenizer, [question.prompt for question, _ in part], chat=False)
        prompt, mask = pad_to_bucket(prompt, mask, generator.room)
        tokens = np.stack([answer.canvas for _, answer in part])
        rows = replay(generator.decoder, loaded.params, prompt, mask, tokens)
        yield {name: column[:count] for name, column in rows.items()}


def refinement_lengths(refining: np.ndarray) -> list[int]:
    """How many forwards each refinement of each row took; refining bool `[B, S]`, as `Trace` has it."""
    edges = np.diff(np.pad(refining.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    return (np.argwhere(edges == -1)[:, 1] - np.argwhere(edges == 1)[:, 1]).tolist()
