"""Draws the fronts of docs/front.md and prints its tables.

python docs/make_front.py docs/front/*.jsonl

Decoders that feed beliefs back are compared with the best decoder that does not, of any model, at no more than 1.05
times its forwards.
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from lrd_jax.research.markdown import table
from lrd_jax.research.reproduce.front import ahead
from lrd_jax.research.statistics import difference

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
            kept = ahead([c for c in cells if c["model"] == model and feeds_back(c) == fed and c["forwards"] <= 5])
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
        if not rivals:
            continue
        best = max(rivals, key=lambda c: c["accuracy"])
        more, low, high = (100 * d for d in difference(cell, best))
        found.append(
            [
                cell["decoder"],
                f"{cell['forwards']:.2f}",
                f"{100 * cell['accuracy']:.1f}",
                f"{best['decoder']}, {best['model']}",
                f"{best['forwards']:.2f}",
                f"{100 * best['accuracy']:.1f}",
                f"{more:+.1f} ({low:+.1f} to {high:+.1f})",
            ]
        )
    return found


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
        name = f"{'-'.join(tasks)}-{canvas}-seed-{seed}.png"
        draw(group, f"{' and '.join(tasks)}, canvas {canvas}, {count:,} problems a mark", Path(files[0]).parent / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
