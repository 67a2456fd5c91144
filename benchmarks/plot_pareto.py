"""Draws accuracy against forwards and against wall time, from the cells that `lrd-jax eval-tiny` wrote.

    python benchmarks/plot_pareto.py OUT.png CELLS.jsonl [--canvas 64] [--model lrd-tiny]

Decoders that no other beats in both make the front: a line, with their names. The rest are grey.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

AXES = {
    "forwards, mean of a problem": lambda cell: cell["forwards"],
    "wall time, ms a problem": lambda cell: 1000 * cell["seconds"] / cell["problems"],
}


def front(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, accuracy) that no other point beats, cheapest first."""
    best, kept = float("-inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            kept.append(i)
    return kept


def draw(axes, cells: list[dict], label: str) -> None:
    """One panel, with 95 % intervals of the accuracies."""
    points = [(AXES[label](cell), 100 * cell["accuracy"]) for cell in cells]
    ahead = front(points)
    for i, ((x, y), cell) in enumerate(zip(points, cells, strict=True)):
        colour = "tab:blue" if i in ahead else "0.6"
        error = [[y - 100 * cell["low"]], [100 * cell["high"] - y]]
        axes.errorbar(x, y, error, fmt="o", color=colour, elinewidth=0.6, markersize=4, zorder=2)
    axes.step(*zip(*(points[i] for i in ahead), strict=True), where="post", color="tab:blue", linewidth=1, zorder=1)
    for number, i in enumerate(ahead, 1):
        style = {"textcoords": "offset points", "color": "tab:blue", "weight": "bold"}
        axes.annotate(str(number), points[i], xytext=(4, 4), **style)
        axes.plot([], [], " ", label=f"{number}  {cells[i]['decoder']}")
    axes.set(xlabel=label, xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, handlelength=0, fontsize="small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--canvas", type=int, default=64)
    parser.add_argument("--model", default="lrd-tiny")
    args = parser.parse_args()
    cells = [json.loads(line) for line in args.cells.read_text().splitlines()]
    cells = [cell for cell in cells if (cell["model"], cell["canvas"]) == (args.model, args.canvas)]
    if not cells:
        parser.error(f"{args.cells} has no cell of {args.model} on a canvas of {args.canvas}")
    figure, panels = plt.subplots(1, 2, figsize=(10, 5.5), sharey=True, layout="constrained")
    for axes, label in zip(panels, AXES, strict=True):
        draw(axes, cells, label)
    panels[0].set_ylabel("right answers, %")
    counts = " or ".join(map(str, sorted({cell["problems"] for cell in cells})))
    figure.suptitle(f"{args.model}, canvas {args.canvas}, {counts} held-out problems, 95 % intervals")
    figure.savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
