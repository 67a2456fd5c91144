"""Accuracy against forwards on the embedded models' tasks: every decoder of a set, on held-out problems.

One cell is one (model, canvas, decoder). Cells are appended to a JSON-lines file as they come, and a cell that is there
already is not run again, so that a run which was cut short goes on.
"""

import collections
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from lrd_jax.checkpoint import load
from lrd_jax.decode import Decoder, make_decode
from lrd_jax.decoder_sets import DECODER_SETS
from lrd_jax.state import StopReason
from lrd_jax.tasks import TASKS, Problem, check, stream
from lrd_jax.text import decode_text, encode_prompts, pad_to_bucket

# Three word problems to one function, as the models were trained.
TASK_SHARES = {"words": 3, "code": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalTiny:
    """Measure decoders on held-out problems of the embedded models' tasks, with weights in float32.

    Attributes:
      models: embedded models, or folders trained on the same tasks.
      canvases: positions to generate; each is a column of the table.
      counts: problems a cell, one number a canvas.
      decoders: a set of decoders, a key of `lrd_jax.decoder_sets.DECODER_SETS`.
      only: names within the set to run; all of them by default.
      batch: rows decoded together.
      seed: of the held-out problems.
      output: JSON-lines file that cells are appended to.
    """

    models: tuple[str, ...] = ("lrd-tiny", "lrd-tiny-soft")
    canvases: tuple[int, ...] = (64, 128, 256)
    counts: tuple[int, ...] = (1000, 200, 200)
    decoders: str = "table"
    only: tuple[str, ...] = ()
    batch: int = 50
    seed: int = 1
    output: Path = Path("eval-tiny.jsonl")

    def __post_init__(self):
        if len(self.counts) != len(self.canvases):
            raise ValueError(f"counts={self.counts} must have one number for each of canvases={self.canvases}")
        if self.decoders not in DECODER_SETS:
            raise ValueError(f"decoders={self.decoders!r} is unknown; choose one of {', '.join(DECODER_SETS)}")
        unknown = set(self.only) - set(DECODER_SETS[self.decoders])
        if unknown:
            raise ValueError(
                f"only={', '.join(sorted(unknown))} is not in the set {self.decoders!r}; "
                f"it holds {', '.join(DECODER_SETS[self.decoders])}"
            )


def run(config: EvalTiny, report: Callable[[dict], None] = lambda cell: None) -> list[dict]:
    """Runs every cell that the output file does not hold yet; calls `report` with each; returns all of them."""
    done = {_key(cell): cell for cell in read_cells(config.output)}
    cells = []
    for model_name in config.models:
        model, params, tokenizer, _ = load(model_name, dtype="float32")
        for canvas, count in zip(config.canvases, config.counts, strict=True):
            for name, make in DECODER_SETS[config.decoders].items():
                if config.only and name not in config.only:
                    continue
                cell = {"model": model_name, "canvas": canvas, "decoder": name, "problems": count, "seed": config.seed}
                if _key(cell) in done:
                    cells.append(done[_key(cell)])
                    continue
                drawn = _held_out(count, config.seed, canvas, tokenizer)
                cell |= _measure(make_decode(model, make(canvas)), params, tokenizer, drawn, config.batch)
                with config.output.open("a") as file:
                    file.write(json.dumps(cell) + "\n")
                cells.append(cell)
                report(cell)
    return cells


def read_cells(path: Path) -> Iterator[dict]:
    """The cells of a results file, none where it is absent; a last line that was cut short is passed over."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _key(cell: dict) -> tuple:
    return tuple(cell[field] for field in ("model", "canvas", "decoder", "problems", "seed"))


def _held_out(count: int, seed: int, canvas: int, tokenizer) -> list[Problem]:
    """`count` held-out problems, all grades equally often, whose answers fit the canvas."""
    drawn, left, shares = [], count, sum(TASK_SHARES.values())
    for task, share in TASK_SHARES.items():
        wanted = round(left * share / shares)
        left, shares = left - wanted, shares - share
        fitting = (p for p in stream(TASKS[task], "held-out", seed) if len(tokenizer(p.answer)["input_ids"]) < canvas)
        drawn += itertools.islice(fitting, wanted)
    return drawn


def _measure(decode: Decoder, params, tokenizer, drawn: list[Problem], batch: int) -> dict:
    """Decodes all problems; wall time leaves out compiling, padding rows and turning tokens into text."""
    drawn = sorted(drawn, key=lambda p: len(tokenizer(p.prompt)["input_ids"]))
    right = collections.defaultdict(list)
    forwards, refines, reasons, seconds = [], [], collections.Counter(), 0.0
    room = decode.model.config.max_length - decode.config.gen_length
    for i in range(0, len(drawn), batch):
        part = drawn[i : i + batch]
        filled = part + part[:1] * (batch - len(part))
        prompt, mask = encode_prompts(tokenizer, [p.prompt for p in filled], chat=False)
        prompt, mask = pad_to_bucket(prompt, mask, room)
        state = decode.start(params, prompt, mask)
        decode.advance(params, state, 0)  # compiles and decodes nothing
        began = time.perf_counter()
        state = jax.block_until_ready(decode.advance(params, state, decode.config.step_limit))
        seconds += time.perf_counter() - began
        result = decode.result(state)
        texts = decode_text(tokenizer, np.asarray(result.tokens), decode.model.config)
        for problem, text in zip(part, texts, strict=False):
            right[f"{problem.task}/{problem.grade}"].append(check(problem, text))
        forwards += result.forwards[: len(part)].tolist()
        refines += result.refine_forwards[: len(part)].tolist()
        reasons.update(StopReason(r).name.lower() for r in result.stop_reason[: len(part)].tolist())
    answers = [ok for oks in right.values() for ok in oks]
    low, high = wilson(sum(answers), len(answers))
    return {
        "accuracy": sum(answers) / len(answers),
        "low": low,
        "high": high,
        "forwards": float(np.mean(forwards)),
        "refine_forwards": float(np.mean(refines)),
        "seconds": seconds,
        "stop_reasons": dict(reasons),
        "grades": {grade: [sum(oks), len(oks)] for grade, oks in sorted(right.items())},
    }


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927)."""
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return centre - half, centre + half


def markdown(cells: list[dict]) -> str:
    """The cells as Markdown tables, one a (model, canvas)."""
    lines = []
    for model, canvas in dict.fromkeys((c["model"], c["canvas"]) for c in cells):
        group = [c for c in cells if (c["model"], c["canvas"]) == (model, canvas)]
        lines += [f"**{model}, canvas {canvas}, {group[0]['problems']} problems**", ""]
        lines += ["| decoder | accuracy % (95 %) | forwards | refine | ms a problem | ends |", "|---" * 6 + "|"]
        for c in group:
            ends = ", ".join(f"{reason} {count}" for reason, count in sorted(c["stop_reasons"].items()))
            interval = f"{100 * c['accuracy']:.1f} ({100 * c['low']:.1f}-{100 * c['high']:.1f})"
            lines.append(
                f"| {c['decoder']} | {interval} | {c['forwards']:.1f} | {c['refine_forwards']:.1f} "
                f"| {1000 * c['seconds'] / c['problems']:.1f} | {ends} |"
            )
        lines.append("")
    return "\n".join(lines)
