"""The run: cells are measured into a folder, and everything is drawn from what the folder holds."""

import json
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from lrd_jax.checkpoint import find_model
from lrd_jax.convert.reader import weight_dtype
from lrd_jax.errors import Refused
from lrd_jax.presets import BENCHMARKS, yours
from lrd_jax.research.cells import Wanted, cell_key, cells_in, measure
from lrd_jax.research.plots import check_matplotlib
from lrd_jax.research.questions import Source, source_of
from lrd_jax.research.reproduce.decoders import TIMED
from lrd_jax.research.reproduce.exhibits import EXHIBITS, selected, wanted
from lrd_jax.research.reproduce.folder import settings
from lrd_jax.research.reproduce.options import Reproduce
from lrd_jax.research.reproduce.timing import time_all, times_of

CELLS, TIMES, RESULTS, REPORT = "cells.jsonl", "times.jsonl", "results.json", "report.md"


def reproduce(options: Reproduce, report: Callable[[dict], None] = lambda cell: None) -> Path:
    """Measures what is missing and draws everything; returns the report.

    Raises:
      ValueError: unknown models, tasks, decoders or dtypes, no matplotlib, or a folder without a cell to draw.
    """
    check_matplotlib()
    if options.redraw:
        take_over(options)
        return draw(options)
    if options.dtype is not None:
        weight_dtype(options.dtype)  # it and the next two refuse what cannot be, of every model
    cells_wanted = wanted(options)
    sources = {model: source_for(options, model) for model in options.model}
    take_over(options)
    for model, source in sources.items():
        asked = {"source": source, "batch": options.batch, "seed": options.seed, "context": options.context}
        asked |= {"dtype": options.dtype, "mesh": options.mesh}
        cells, times = options.output / CELLS, options.output / TIMES
        measure(model, cells_wanted, tasks=options.tasks, output=cells, report=report, **asked)
        if {"table1", "table4"} & set(options.what):
            problems = dict(zip(options.canvases, options.counts, strict=True))
            time_all(model, selected(TIMED, options) | yours(options), problems, output=times, **asked)
    return draw(options)


def source_for(options: Reproduce, model: str) -> Source:
    """Where the questions for a model come from.

    Raises:
      ValueError: an unknown model or task, tasks of both kinds; benchmarks without lm-eval or without a sandbox.
    """
    folder = find_model(model)
    if not set(options.tasks) & set(BENCHMARKS):
        return source_of(options.tasks)
    if others := set(options.tasks) - set(BENCHMARKS):
        raise Refused(f"tasks={', '.join(sorted(others))}: give them apart from {', '.join(BENCHMARKS)}")
    if len(set(options.tasks)) < len(options.tasks):
        raise Refused(f"tasks={', '.join(options.tasks)}: name each once")
    try:
        from lrd_jax.research.benchmarks.benchmarks import checkpoint_behind, prompting
        from lrd_jax.research.benchmarks.programs import Programs
        from lrd_jax.research.benchmarks.questions import BenchmarkQuestions
    except ModuleNotFoundError as error:
        raise Refused(f"{error.name} is missing, which benchmarks need: pip install 'lrd-jax[eval]'") from error
    checkpoint = options.settings or checkpoint_behind(model, folder)
    runs_code = any(prompting(checkpoint, task).runs_code for task in options.tasks)
    programs = Programs(unsafe=options.unsafe_code) if runs_code else None
    return BenchmarkQuestions(options.tasks, checkpoint, options.data, programs)


def take_over(options: Reproduce) -> None:
    """Copies cells of these models from the given files into the folder, where it does not hold their like."""
    held = cells_in(options.output / CELLS).read().held
    found = _cells_of(options.cells)
    new = [cell for key, cell in found.items() if cell["model"] in options.model and key not in held]
    if new:
        with cells_in(options.output / CELLS) as results:
            results.append(new)


def missing(options: Reproduce) -> list[tuple[str, Wanted]]:
    """The cells that a run would measure, with their models."""
    done = _cells_of((options.output / CELLS, *options.cells))
    out = []
    for model in options.model:
        for one in wanted(options):
            cell = one.cell(model, seed=options.seed, tasks=options.tasks, dtype=options.dtype)
            if not one.is_held(done.get(cell_key(cell))):
                out.append((model, one))
    return out


def _cells_of(files: Iterable[Path]) -> dict[Hashable, dict]:
    """The cells of several files by key; of equal ones the first file's."""
    return {key: cell for file in reversed(tuple(files)) for key, cell in cells_in(file).read().held.items()}


def draw(options: Reproduce) -> Path:
    """Writes the results as JSON, Markdown and pictures; returns the Markdown.

    Raises:
      ValueError: no cell of these models, tasks and seed.
    """
    from lrd_jax.research.reproduce.show import SHOWS  # matplotlib takes a while to import

    path = options.output / CELLS
    cells, times = cells_in(path).read().held.values(), times_of(options.output / TIMES)
    found = settings(cells, times, options.model, options.tasks, options.dtype, options.seed)
    if not found:
        raise Refused(
            f"{path} holds no cell of {', '.join(options.model)} on {', '.join(options.tasks)} of seed {options.seed}; "
            "run without --redraw, or bring some with --cells"
        )
    titles = {name: f"{name}: {EXHIBITS[name].title}" for name in options.what}
    titles |= {"claims": "The paper's claims", "field": "Claims of the field's other decoders"}
    text, results = [], {}
    for name, title in titles.items():
        shown_settings = [(setting, shown) for setting in found if (shown := SHOWS[name](setting)) is not None]
        text += [f"## {title}", ""] if shown_settings else []
        for setting, shown in shown_settings:
            results.setdefault(name, {}).setdefault(setting.model, {})[str(setting.canvas)] = shown.data
            text += [f"**{setting.model}, canvas {setting.canvas}**", ""]
            if shown.figure is not None:
                file = f"{name}-{_file_name(setting.model)}-{setting.canvas}.png"
                shown.figure.savefig(options.output / file, dpi=120)
                text += [f"![{title}]({file})", ""]
            text += [shown.markdown, ""]
    (options.output / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    (options.output / REPORT).write_text("\n".join(text), encoding="utf-8")
    return options.output / REPORT


def _file_name(model: str) -> str:
    """A model's name or path as a part of a file's name."""
    return model.strip("./").replace("/", "-")
