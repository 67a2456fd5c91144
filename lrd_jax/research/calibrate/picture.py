"""Pictures of a scan's front and of a certificate's sequence. Needs matplotlib, the extra `plots`."""

from pathlib import Path
from typing import Any

from lrd_jax.durable import check_writable
from lrd_jax.errors import Refused
from lrd_jax.files import require_file
from lrd_jax.research.calibrate.scan import Point
from lrd_jax.research.plots import check_matplotlib

_KINDS = ("png", "pdf", "svg", "jpg", "jpeg", "webp", "eps", "ps")  # what matplotlib draws wherever it is installed


def check_picture(path: Path) -> None:
    """Raises ValueError where no picture could be drawn or written there."""
    check_matplotlib()
    require_file(path, "name a file for the picture")
    if path.suffix.removeprefix(".").lower() not in _KINDS:
        raise Refused(f"{path}: pictures end in {', '.join(f'.{kind}' for kind in _KINDS)}")
    if not path.absolute().parent.is_dir():
        raise Refused(f"{path}: there is no folder {path.absolute().parent}; make it, or name another one")
    check_writable(path.absolute().parent, str(path))


def draw_front(path: Path, points: list[Point], best: list[Point], chosen: Point, reference: Point, title: str) -> None:
    """Quality against forwards of all settings, the front as a line, the knee and the unstopped decode marked."""
    figure, axes = _axes(title)
    names = {True: "agreement with the unstopped decode, %", False: "right answers, %"}
    axes.set(xlabel="forwards, mean of a prompt", ylabel=names[chosen.accuracy is None])
    axes.scatter(*_xy(points), s=14, color="0.75", label=f"{len(points)} settings", zorder=1)
    axes.step(*_xy(best), where="post", color="tab:blue", linewidth=1, zorder=2)
    axes.scatter(*_xy(best), s=24, color="tab:blue", label="front", zorder=3)
    axes.scatter(*_xy([reference]), s=60, marker="s", color="tab:green", label="preset, never stopped", zorder=4)
    axes.scatter(*_xy([chosen]), s=140, marker="*", color="tab:red", label="knee: the preset file", zorder=5)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def draw_sequence(path: Path, rungs: list[dict[str, Any]], risk: float, confidence: float, title: str) -> None:
    """Changed answers and their bounds against forwards, up to five times the risk; entries as in a certificate."""
    figure, axes = _axes(title)
    axes.set(xlabel="forwards, mean of a prompt", ylabel="answers changed by the stop, %")
    axes.axhline(100 * risk, color="tab:red", linewidth=1, label=f"risk {100 * risk:g} %")
    for certified, colour, name in ((True, "tab:blue", "certified"), (False, "0.65", "not certified")):
        some = [rung for rung in rungs if rung["certified"] is certified]
        if not some:
            continue
        x = [rung["forwards"] for rung in some]
        y = [100 * rung["rate"] for rung in some]
        above = [100 * (rung["bound"] - rung["rate"]) for rung in some]
        label = f"{name}, bound at {100 * confidence:g} %"
        axes.errorbar(x, y, [[0] * len(x), above], fmt="o", color=colour, capsize=3, label=label)
    axes.set_ylim(0, 500 * risk)
    axes.legend(loc="upper right", frameon=False)
    _save(figure, path)


def _axes(title: str):
    from matplotlib.figure import Figure  # no pyplot: a library must not choose the user's backend

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _xy(points: list[Point]) -> tuple[list[float], list[float]]:
    return [point.forwards for point in points], [100 * point.quality for point in points]


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
