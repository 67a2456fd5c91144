"""Draws the fronts of docs/front.md and prints its tables.

python docs/make_front.py docs/front/*.jsonl

Decoders that settle beliefs are compared with the best decoder that does not, of any model, at no more than 1.05 times
its forwards, and the other way about. Then some of them by the number of steps of a problem, both seeds together.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lrd_jax.research.markdown import table, whole_percent
from lrd_jax.research.reproduce.front import ahead
from lrd_jax.research.reproduce.tables import points
from lrd_jax.research.statistics import difference, share

FED = "settled"
LOOKS = {  # a model's decoders: whether they feed back, label, colour, marker
    "lrd-tiny-refined": (
        (True, "beliefs fed back until settled, then all", "#D55E00", "p"),
        (False, "hard masks, same model", "#0072B2", "s"),
    ),
    "lrd-tiny-plain": ((False, "hard masks, control (plain objective, same steps)", "#777777", "o"),),
    "lrd-tiny-plain-seed-5": ((False, "the same, another seed", "#BBBBBB", "o"),),
    "lrd-tiny-sudoku-refined": (
        (True, "beliefs fed back until settled, then all", "#D55E00", "p"),
        (False, "hard masks, same model", "#0072B2", "s"),
    ),
    "lrd-tiny-sudoku": ((False, "hard masks, control (plain objective, same steps)", "#777777", "o"),),
}


def feeds_back(cell: dict) -> bool:
    return cell["decoder"].startswith(FED)


def draw(cells: list[dict], title: str, path: Path) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for model, looks in LOOKS.items():
        for fed, label, colour, marker in looks:
            kept = ahead([c for c in cells if c["model"] == model and feeds_back(c) == fed and c["forwards"] <= 6])
            if not kept:
                continue
            x, y = [c["forwards"] for c in kept], [100 * c["accuracy"] for c in kept]
            ends = [(c["accuracy"] - c["low"], c["high"] - c["accuracy"]) for c in kept]
            bars = [[100 * max(0.0, end) for end in side] for side in zip(*ends, strict=True)]  # of 1.0 by rounding
            axes.plot(x, y, color=colour, marker=marker, label=label)
            axes.errorbar(x, y, bars, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5)
    axes.set(xlabel="forwards a problem (mean)", ylabel="right answers, %", title=title)
    axes.grid(color="0.92")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


def lines(cells: list[dict]) -> list[list[str]]:
    """A line for each decoder of the front that feeds back, beside the best that does not."""
    hard = [c for c in cells if not feeds_back(c)]
    found = []
    for cell in ahead([c for c in cells if feeds_back(c)]):
        rivals = [c for c in hard if c["forwards"] <= 1.05 * cell["forwards"]]
        if rivals:
            found.append(beside(cell, max(rivals, key=lambda c: c["accuracy"])))
    return found


def unreached(cells: list[dict]) -> list[list[str]]:
    """A line for each decoder without feedback that is right more often than all that feed back and take no more."""
    fed = [c for c in cells if feeds_back(c)]
    found = []
    for cell in sorted((c for c in cells if not feeds_back(c)), key=lambda c: c["forwards"]):
        rivals = [c for c in fed if c["forwards"] <= 1.05 * cell["forwards"]]
        best = max(rivals, key=lambda c: c["accuracy"], default=None)
        if best is not None and best["accuracy"] < cell["accuracy"]:
            found.append(beside(best, cell))
    return found


def beside(cell: dict, rival: dict) -> list[str]:
    """A line of both cells and their difference."""
    return [
        cell["decoder"],
        f"{cell['forwards']:.2f}",
        f"{100 * cell['accuracy']:.1f}",
        f"{rival['decoder']}, {rival['model']}",
        f"{rival['forwards']:.2f}",
        f"{100 * rival['accuracy']:.1f}",
        points(difference(cell, rival)),
    ]


# At equal forwards without and with feedback; and what more forwards reach.
BY_STEPS = ("threshold 0.6", "settled below 0.03 or sure of 0.8", "threshold 0.9", "plain, 1 a step")


def by_steps(cells: list[dict]) -> list[list[str]]:
    """A line for each number of steps of each task: right answers in percent with their intervals."""
    counts: dict[tuple[str, str], np.ndarray] = {}  # right answers and problems, by grade and decoder
    for cell in cells:
        for grade, right_and_all in cell["grades"].items():
            key = grade, cell["decoder"]
            counts[key] = counts.get(key, 0) + np.array(right_and_all)
    rates = {key: share(np.arange(count) < right) for key, (right, count) in counts.items()}
    grades = dict.fromkeys(grade for grade, _ in rates)
    return [
        [f"{grade} ({rates[grade, BY_STEPS[0]]['of']})", *(whole_percent(rates[grade, name]) for name in BY_STEPS)]
        for grade in grades
    ]


def main(*files: str) -> None:
    cells = [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]
    groups: dict[tuple, list[dict]] = {}
    for cell in cells:
        groups.setdefault((tuple(cell["tasks"]), cell["canvas"], cell["seed"]), []).append(cell)
    head = ["fed back", "forwards", "right %", "best without", "forwards", "right %", "difference (95 %)"]
    for (tasks, canvas, seed), group in sorted(groups.items()):
        count = min(cell["problems"] for cell in group)
        print(f"\n{' and '.join(tasks)}, canvas {canvas}, seed {seed}, {count:,} problems a decoder:\n")
        print(table(head, lines(group)))
        if better := unreached(group):
            print("\nWithout feedback, and right more often than any that settles and takes no more forwards:\n")
            print(table(head, better))
        name = f"{'-'.join(tasks)}-{canvas}-seed-{seed}.png"
        draw(group, f"{' and '.join(tasks)}, canvas {canvas}, {count:,} problems a mark", Path(files[0]).parent / name)
    print("\nwords and code by their steps, lrd-tiny-refined, canvas 64:\n")
    mine = [c for c in cells if (c["model"], c["canvas"], c["tasks"]) == ("lrd-tiny-refined", 64, ["words", "code"])]
    print(table(["task / steps (problems)", *BY_STEPS], by_steps([c for c in mine if c["decoder"] in BY_STEPS])))


if __name__ == "__main__":
    main(*sys.argv[1:])
