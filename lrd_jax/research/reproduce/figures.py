"""Figures 2 to 5: how beliefs settle, and how accuracy answers to what is fed back."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from lrd_jax.research.decoders import Decoders
from lrd_jax.research.markdown import table
from lrd_jax.research.replay import PAPER_STOP
from lrd_jax.research.reproduce.decoders import BASELINE, COURSES, FEEDBACK, NUCLEUS, PAPER, SETTLING
from lrd_jax.research.reproduce.folder import Setting, Shown
from lrd_jax.research.reproduce.tables import accuracy

_COLOURS = ("#D55E00", "#0072B2", "#009E73")  # Okabe and Ito's
_MARKERS = ("o", "s", "^")

# Of Dream-7B-Instruct at 512, in the paper's text: share of rows settled by refinement step.
PAPER_SETTLED = {2: 0.689, 3: 0.85}


def figure2(setting: Setting) -> Shown | None:
    """Distance to the final output, and the divergence that the stop reads, by forward."""
    cells = {name: cell for name in COURSES if (cell := setting.pick(name, "steps")) is not None}
    if not cells:
        return None
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, cell), colour in zip(cells.items(), _COLOURS, strict=False):
        steps = cell["steps"]
        x = range(1, len(steps["distance"]) + 1)
        left.plot(x, steps["distance"], color=colour, label=name)
        left.plot(x, steps["open_distance"], color=colour, linestyle=":", label=f"{name}, open positions")
        left.fill_between(x, steps["distance_low"], steps["distance_high"], color=colour, alpha=0.15, linewidth=0)
        right.plot(x, [_positive(d) for d in steps["divergence"]], color=colour)
        switch = steps["switch"][1]
        if switch:
            for axes in (left, right):
                axes.axvline(switch, color=colour, linestyle="--", linewidth=1)
            left.annotate(
                "refine | commit",
                (switch, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, -14),
                textcoords="offset points",
                color=colour,
                fontsize=9,
            )
    tau = PAPER_STOP.tau
    right.axhline(tau, color="0.4", linestyle="-.", linewidth=1, label=f"the paper's tau, {tau:g}")
    left.set(xlabel="forward", ylabel="KL to the final output, nats a position", ylim=(0, None))
    right.set(xlabel="forward", ylabel="KL to the forward before, nats a position", yscale="log")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _title(figure, setting, next(iter(cells.values())), "band: 10 to 90 % of rows")
    rows = [
        [
            name,
            str(at + 1),
            *(_digits(cell["steps"][field][at]) for field in ("distance", "open_distance", "divergence")),
            f"{cell['steps']['stopped'][at]:.0%}",
        ]
        for name, cell in cells.items()
        for at in _shown_steps(len(cell["steps"]["distance"]))
    ]
    head = ["decoder", "forward", "KL to the final output", "of open positions", "KL to the forward before"]
    data = {name: cell["steps"] for name, cell in cells.items()}
    return Shown(data, table([*head, "rows that the paper's stop would have filled"], rows), figure)


def figure3(setting: Setting) -> Shown | None:
    """Cumulative share of refinements that ended by their n-th forward."""
    data = {}
    for name, make in SETTLING.items():
        cell, refine = setting.pick(name, "refinements"), make(setting.canvas).refine
        if cell is not None:
            label = f"D < {refine.tau:g}"
            data[label] = settled_by(cell["refinements"], refine.max_steps)
    if not data:
        return None
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    most = max(len(shares) for shares in data.values())
    for (label, shares), colour, marker in zip(data.items(), _COLOURS, _MARKERS, strict=False):
        full = [100 * s for s in shares] + [100 * shares[-1]] * (most - len(shares))
        axes.plot(range(1, most + 1), full, color=colour, marker=marker, label=f"settled at {label}")
    axes.plot(*zip(*((n, 100 * share) for n, share in PAPER_SETTLED.items()), strict=True), "k*", markersize=11)
    axes.plot([], [], "k*", markersize=11, label="the paper, Dream-7B-Instruct, D < 0.1")
    axes.set(xlabel="forwards of refinement", ylabel="rows that have settled, %", ylim=(0, 104))
    axes.set_xticks(range(1, most + 1))
    axes.grid(color="0.92")
    axes.legend(loc="lower right", fontsize=9)
    _title(figure, setting, setting.pick(PAPER, "refinements") or {"problems": None}, "")
    head = ["settled at", *(f"by {n}" for n in range(1, most + 1))]
    rows = [[label, *(f"{s:.1%}" for s in shares)] + [""] * (most - len(shares)) for label, shares in data.items()]
    return Shown(data, table(head, rows), figure)


def settled_by(refinements: dict[str, int], max_steps: int) -> list[float]:
    """The share of refinements that had settled by forward 1, 2, ..., up to where all had or none could any more.

    Those that took `max_steps` forwards were cut there, and count as not settled.
    """
    total = sum(refinements.values())
    last = max((int(n) for n in refinements if int(n) < max_steps), default=1)
    return [
        sum(c for n, c in refinements.items() if int(n) <= s and int(n) < max_steps) / total for s in range(1, last + 1)
    ]


def figure4(setting: Setting) -> Shown | None:
    """Accuracy and mixing against r_f."""
    return _sweep(setting, FEEDBACK, lambda mix: mix.r_f, "r_f, share of its belief that a masked position feeds back")


def figure5(setting: Setting) -> Shown | None:
    """Accuracy and mixing against top_p."""
    return _sweep(setting, NUCLEUS, lambda mix: mix.top_p, "top_p, mass of the nucleus that is fed back (r_f 0.4)")


def _sweep(setting: Setting, groups: dict[str, Decoders], read: Callable[[Any], float], label: str) -> Shown | None:
    """One number of the mixing against accuracy, and against how much is mixed."""
    data = {}
    for base, decoders in groups.items():
        found = [
            (read(make(setting.canvas).mix), setting.pick(name), setting.pick(name, "steps"))
            for name, make in decoders.items()
        ]
        points = sorted(((x, cell, seen) for x, cell, seen in found if cell is not None), key=lambda point: point[0])
        if len(points) > 1:  # one alone shows no effect
            data[base] = [_swept(*point) for point in points]
    if not data:
        return None
    figure = Figure(figsize=(6.5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for (base, points), colour, marker in zip(data.items(), _COLOURS, _MARKERS, strict=False):
        x = [p["x"] for p in points]
        y = [100 * p["accuracy"] for p in points]
        bars = [[100 * (p["accuracy"] - p["low"]) for p in points], [100 * (p["high"] - p["accuracy"]) for p in points]]
        top.errorbar(x, y, bars, color=colour, marker=marker, capsize=3, label=base)
        seen = [p for p in points if p["mixed"] is not None]
        at = [p["x"] for p in seen]
        bottom.plot(at, [100 * p["mixed"] for p in seen], color=colour, marker=marker)
        bottom.plot(
            at, [100 * p["alpha"] for p in seen], color=colour, marker=marker, linestyle=":", markerfacecolor="w"
        )
    baseline = setting.pick(BASELINE)
    if baseline is not None:
        top.axhline(100 * baseline["accuracy"], color="0.4", linestyle="-.", linewidth=1, label=BASELINE)
    fast = setting.pick("threshold 0.9")
    if fast is not None:
        top.axhline(100 * fast["accuracy"], color="#E69F00", linestyle="--", linewidth=1, label="threshold 0.9")
    bottom.plot([], [], color="0.3", label="masked tokens with more than one candidate")
    bottom.plot([], [], color="0.3", linestyle=":", label="mean weight of the nucleus")
    top.set(ylabel="right answers, %")
    bottom.set(xlabel=label, ylabel="mixed, %", ylim=(0, None))
    top.legend(fontsize=9)
    bottom.legend(fontsize=9)
    for axes in (top, bottom):
        axes.grid(color="0.92")
    some = max((p for points in data.values() for p in points), key=lambda p: p["problems"])
    _title(figure, setting, some, "95 % intervals")
    rows = [
        [
            base,
            f"{p['x']:g}",
            accuracy(p),
            str(p["problems"]),
            f"{p['forwards']:.1f}",
            *(_share(p[f]) for f in ("mixed", "alpha")),
        ]
        for base, points in data.items()
        for p in points
    ]
    head = ["decoder", label.split(",")[0], "accuracy % (95 %)", "problems", "forwards", "tokens mixed", "mean weight"]
    return Shown(data, table(head, rows), figure)


def _swept(x: float, cell: dict, seen: dict | None) -> dict:
    kept = {field: cell[field] for field in ("accuracy", "low", "high", "problems", "forwards")}
    steps = seen["steps"] if seen else {"mixed_share": None, "mean_alpha": None}
    return {"x": x, **kept, "mixed": steps["mixed_share"], "alpha": steps["mean_alpha"]}


def _title(figure: Figure, setting: Setting, cell: dict, more: str) -> None:
    words = [setting.model, f"canvas {setting.canvas}"]
    words += [f"{cell['problems']:,} problems"] if cell["problems"] else []
    figure.suptitle(", ".join([*words, *([more] if more else [])]), fontsize=11)


def _positive(d: float | None) -> float:
    """A value that a logarithmic axis can show; the first forward of all has none."""
    return d if d else float("nan")


def _digits(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}"


def _share(x: float | None) -> str:
    return "" if x is None else f"{x:.1%}"


def _shown_steps(steps: int) -> list[int]:
    """The first few forwards, then every doubling, then the last."""
    return sorted({s for s in (0, 1, 2, 3, 7, 15, 31, 63, 127, 255, 511, steps - 1) if s < steps})
