"""Draws the loss of runs, one after the other.

python recipes/plot_loss.py OUT.png RUN/log.jsonl [RUN/log.jsonl ...]
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

WINDOW = 10  # log lines to average over


def main(out: str, *logs: str) -> None:
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    start = 0
    for log in logs:
        lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
        steps = start + np.array([line["step"] for line in lines])
        loss = np.array([line["loss"] for line in lines])
        (curve,) = axes.plot(steps, loss, alpha=0.25)
        smooth = np.convolve(loss, np.ones(WINDOW) / WINDOW, mode="valid")
        middles = steps[WINDOW // 2 :][: len(smooth)]
        axes.plot(middles, smooth, color=curve.get_color(), label=Path(log).parent.name)
        start = steps[-1]
    axes.set(xlabel="step", ylabel="loss, nats per canvas position", yscale="log")
    axes.legend()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
