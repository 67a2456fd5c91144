"""Accuracy against forwards: every kind of decoder with the front of its settings."""

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lrd_jax.research.markdown import table
from lrd_jax.research.reproduce.decoders import FRONTS
from lrd_jax.research.reproduce.folder import Setting, Shown
from lrd_jax.research.reproduce.tables import YOURS, accuracy
from lrd_jax.research.statistics import front

# Okabe and Ito's colours, which colour-blind readers tell apart; LRD's are the strong ones, with full markers.
_LOOKS: dict[str, tuple[str, str]] = {
    "k a step": ("#000000", "o"),
    "k a step, end-of-text stop": ("#777777", "x"),
    "k a step with mixing": ("#009E73", "P"),
    "confidence threshold (Fast-dLLM)": ("#E69F00", "s"),
    "the same in cached blocks of 32": ("#E69F00", "1"),
    "entropy bound (EB-Sampler)": ("#56B4E9", "D"),
    "sure and stable (KLASS)": ("#CC79A7", "v"),
    "far apart (DUS)": ("#56B4E9", "H"),
    "wide, and taken back (WINO)": ("#CC79A7", "<"),
    "fed back, and reset (ReMix)": ("#F0E442", "v"),
    "the answer far ahead (Prophet)": ("#777777", "d"),
    "a canvas that grows (DAEDAL)": ("#009E73", ">"),
    "LRD, the paper's stop": ("#D55E00", "X"),
    "LRD, guarded stop": ("#0072B2", "^"),
    "LRD, threshold commits": ("#0072B2", "*"),
    "LRD, settled, then all": ("#D55E00", "p"),
    "LRD, settled, on a canvas that grows": ("#D55E00", "8"),
    YOURS: ("#882255", "h"),
}


def ahead(cells: list[dict]) -> list[dict]:
    """The cells on the front of accuracy against forwards."""
    return [cells[i] for i in front([(cell["forwards"], cell["accuracy"]) for cell in cells])]


def families(setting: Setting) -> dict[str, list[dict]]:
    """The cells of each kind of decoder that has any."""
    found = {family: setting.present(names) for family, names in {**FRONTS, YOURS: setting.yours}.items()}
    return {family: cells for family, cells in found.items() if cells}


def show(setting: Setting) -> Shown | None:
    """Each front as numbers and as a Markdown table, and the picture."""
    fronts = {family: ahead(cells) for family, cells in families(setting).items()}
    if sum(map(len, fronts.values())) < 2:  # one decoder alone is no front
        return None
    best = [id(cell) for cell in ahead([cell for cells in fronts.values() for cell in cells])]
    lines = [
        [
            family,
            f"**{cell['decoder']}**" if id(cell) in best else cell["decoder"],
            f"{cell['forwards']:.1f}",
            accuracy(cell),
            str(cell["problems"]),
        ]
        for family, cells in fronts.items()
        for cell in cells
    ]
    kept = ("decoder", "problems", "accuracy", "low", "high", "forwards")
    data = {family: [{field: cell[field] for field in kept} for cell in cells] for family, cells in fronts.items()}
    head = ["kind", "decoder (bold: no other is better in both)", "forwards", "accuracy % (95 %)", "problems"]
    return Shown(data, table(head, lines), draw(setting))


def draw(setting: Setting) -> Figure:
    """One mark a cell, faint where its own kind beats it; a line a kind; grey behind, the front of all."""
    found = families(setting)
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    everything = ahead([cell for cells in found.values() for cell in cells])
    x, y = _points(everything)
    last = max(cell["forwards"] for cells in found.values() for cell in cells)
    axes.step([*x, last], [*y, y[-1]], where="post", color="0.85", linewidth=7, zorder=0, label="front of all")
    for family, cells in found.items():
        colour, marker = _LOOKS[family]
        kept = ahead(cells)
        rest = [cell for cell in cells if cell not in kept]
        look = {"color": colour, "marker": marker, "markersize": 9 if marker == "*" else 6}
        axes.plot(*_points(rest), linestyle="", alpha=0.3, **look)
        axes.step(*_points(kept), where="post", linewidth=1.2, label=family, **look)
        x, y = _points(kept)
        bars = [[100 * (c["accuracy"] - c["low"]) for c in kept], [100 * (c["high"] - c["accuracy"]) for c in kept]]
        axes.errorbar(x, y, bars, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.45)
    axes.set(xscale="log", xlabel="forwards a problem (mean)", ylabel="right answers, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    floor = min(100 * cell["low"] for cells in found.values() for cell in ahead(cells)) - 1
    axes.set_ylim(bottom=floor)
    below = sum(100 * cell["accuracy"] < floor for cells in found.values() for cell in cells)
    if below:
        note = f"{below} settings lie below" if below > 1 else "1 setting lies below"
        axes.annotate(note, (1, 0), xycoords="axes fraction", xytext=(-6, 6), textcoords="offset points", ha="right")
    counts = sorted({cell["problems"] for cells in found.values() for cell in cells})
    some = f"{counts[0]:,} to {counts[-1]:,}" if len(counts) > 1 else f"{counts[0]:,}"
    axes.set_title(f"{setting.model}, canvas {setting.canvas}, {some} problems a mark, 95 % intervals", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _points(cells: list[dict]) -> tuple[list[float], list[float]]:
    return [cell["forwards"] for cell in cells], [100 * cell["accuracy"] for cell in cells]
