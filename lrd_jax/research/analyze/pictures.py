"""A picture for each question, from the same data as its JSON file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

Data = dict[str, Any]


def draw_stops(data: Data, model: str, file: Path) -> None:
    """Wrong stops by the divergence, by divergence and largest entropy, and the price of a forward saved."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)

    bins = data["by KL at the stop"]
    at = range(len(bins))
    for name, colour, shift in (("changed", "tab:red", -0.08), ("confident and changed", "tab:purple", 0.08)):
        _points(left, [i + shift for i in at], [cell[name] for cell in bins], colour, name.replace("changed", "wrong"))
    left.set_xticks(list(at), [_bin(cell["from"], cell["to"]) for cell in bins], rotation=40, ha="right")
    for i, cell in zip(at, bins, strict=True):
        left.annotate(f"{cell['stops']}", (i, 103), ha="center", fontsize=8, color="0.4")
    left.set(
        xlabel="KL at the stop, nats", ylabel="stops, %", ylim=(-3, 125), title="How often a stop is wrong, by its KL"
    )
    left.legend(loc="upper center", ncols=2, frameon=False)

    _heatmap(figure, middle, data["by KL and entropy"])

    for name, colour, kind in (
        ("KL alone", "tab:red", "KL < tau alone, tau"),
        ("guarded", "tab:blue", "KL < 0.1, entropies <"),
    ):
        cells = data[name]
        share = [cell["changed"] for cell in cells]
        _points(right, [cell["forwards"] for cell in cells], share, colour, f"{kind} of each point")
        labelled = -float("inf")
        for cell in cells:
            place = (cell["forwards"], 100 * cell["changed"]["share"])
            if place[0] - labelled > 0.05 * data["unstopped"]["forwards"]:  # others would be written over each other
                value, labelled = cell["tau"] if name == "KL alone" else cell["max_entropy"], place[0]
                right.annotate(f"{value:g}", place, textcoords="offset points", xytext=(5, 4), fontsize=8, color=colour)
    right.set(xlabel="forwards, mean of a prompt", ylabel="answers changed by stopping, %", title="What a stop costs")
    right.set_xlim(0, 1.03 * data["unstopped"]["forwards"])
    right.legend(loc="upper right", frameon=False)
    figure.suptitle(f"{model}: early stops against the unstopped run, {data['unstopped']['prompts']} prompts")
    figure.savefig(file, dpi=90)


def _heatmap(figure: Figure, axes, data: Data) -> None:
    """Share of wrong stops in every bin of divergence and largest entropy that holds a forward."""
    shares = [
        [100 * wrong / count if count else float("nan") for count, wrong in zip(*rows, strict=True)]
        for rows in zip(data["forwards"], data["changed"], strict=True)
    ]
    columns = [list(column) for column in zip(*shares, strict=True)]  # entropy upwards, KL to the right
    image = axes.imshow(columns, origin="lower", aspect="auto", cmap="RdYlGn_r", vmin=0, vmax=100)
    for i, column in enumerate(columns):
        for j, value in enumerate(column):
            if value == value:
                axes.annotate(f"{value:.0f}", (j, i), ha="center", va="center", fontsize=8)
    for set_ticks, edges in ((axes.set_xticks, data["kl_edges"]), (axes.set_yticks, data["entropy_edges"])):
        labels = [_bin(low, high) for low, high in zip(edges, [*edges[1:], None], strict=True)]
        set_ticks(range(len(edges)), labels, fontsize=8)
    axes.tick_params(axis="x", rotation=40)
    axes.set(xlabel="KL of the forward, nats", ylabel="largest entropy of a masked position, nats")
    axes.set_title("Every forward: wrong if stopped there, %")
    figure.colorbar(image, ax=axes)


def draw_trajectories(data: Data, model: str, file: Path) -> None:
    """A decode's inputs by forward; then refinement at every r_f: where it goes, how it settles, when it collapses."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    (decode, path), (moved, collapse) = figure.subplots(2, 2)

    names = {"to_mask": "to [MASK]", "to_token": "to the token it becomes", "norm": "its norm"}
    for (fact, label), colour in zip(names.items(), ("tab:orange", "tab:blue", "0.5"), strict=True):
        for kind, style in (("text", "-"), ("end-of-text", ":")):
            values = data["decode"][kind][fact]
            forwards = [i + 1 for i, v in enumerate(values) if v is not None]
            decode.plot(forwards, [v for v in values if v is not None], style, color=colour, label=f"{label} ({kind})")
    decode.set(
        xlabel="forward", ylabel="distance", title=f"Masked positions of a decode, r_f {data['r_f of the decode']:g}"
    )
    decode.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0, 0.38))  # between the curves

    cells = data["sweep"]
    colours = [colormaps["viridis"](cell["r_f"]) for cell in cells]
    for cell, colour in zip(cells, colours, strict=True):
        path.plot(cell["to_mask"], cell["to_token"], "o-", ms=3, lw=1, color=colour, label=f"r_f {cell['r_f']:g}")
        forwards = range(1, len(cell["moved"]) + 1)
        if any(cell["moved"]):
            moved.semilogy(forwards, cell["moved_rows"][1], "o-", ms=3, color=colour)
            moved.fill_between(forwards, cell["moved_rows"][0], cell["moved_rows"][2], color=colour, alpha=0.15, lw=0)
    path.set(
        xlabel="distance to [MASK]", ylabel="distance to the token it becomes", title="Refinement, forward by forward"
    )
    path.legend(frameon=False, fontsize=8)
    moved.set(xlabel="forward of refinement", ylabel="movement of a row (median, quartiles)", title="Does it settle?")

    r_f = [cell["r_f"] for cell in cells]
    _points(collapse, r_f, [c["contraction"]["unsettled"] for c in cells], "tab:purple", "rows that have not settled")
    if "accuracy" in cells[0]:
        _points(collapse, r_f, [cell["accuracy"] for cell in cells], "tab:blue", "right answers")
    _points(collapse, r_f, [c["unchanged"] for c in cells], "0.6", f"answers as at r_f {r_f[0]:g}")
    rates = collapse.twinx()
    known = [
        (cell["r_f"], cell["contraction"]["median"]) for cell in cells if cell["contraction"]["median"] is not None
    ]
    if known:
        rates.plot(*zip(*known, strict=True), "s--", color="tab:orange", ms=4)
    rates.axhline(1, color="tab:orange", lw=0.6)
    rates.set_ylabel("movement shrinks by (median of rows)", color="tab:orange")
    rates.set_ylim(0, 1.1)
    collapse.set(xlabel="r_f", ylabel="%", ylim=(-3, 110), title="Contraction and collapse")
    collapse.legend(frameon=False, fontsize=8, loc="center left")
    figure.suptitle(f"{model}: what masked positions feed back")
    figure.savefig(file, dpi=80)


def draw_domains(data: Data, model: str, file: Path) -> None:
    """How often rules tuned on the first domain change an answer elsewhere, and how right the answers are."""
    cells = data["domains"]
    checked = "accuracy" in cells[0]["unstopped"]
    figure = Figure(figsize=(13 if checked else 7, 5), layout="constrained")
    panels = figure.subplots(1, 2 if checked else 1, squeeze=False)[0]
    rules = {name: [cell["stops"][name] for cell in cells] for name in cells[0]["stops"]}
    rules |= {name: [cell["decoders"][name] for cell in cells] for name in cells[0]["decoders"]}
    _grouped(panels[0], cells, {name: [c["changed"] for c in group] for name, group in rules.items()})
    panels[0].axhline(100 * data["risk"], color="0.5", lw=0.8, ls="--")
    panels[0].set(ylabel="answers that are not the unstopped run's, %", title=f"tuned on {data['tuned on']}")
    if checked:
        unstopped = {"unstopped": [cell["unstopped"] for cell in cells]}
        accuracy = {name: [c["accuracy"] for c in group] for name, group in (unstopped | rules).items()}
        _grouped(panels[1], cells, accuracy)
        panels[1].set(ylabel="right answers, %", ylim=(0, 103))
    panels[0].set_ylim(bottom=-2)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{model}: domains")
    figure.savefig(file, dpi=90)


def _grouped(axes, cells: list[Data], series: dict[str, list[Data]]) -> None:
    """One group of points a domain, one colour a rule; a rule has its colour in every panel."""
    for i, (name, shares) in enumerate(series.items()):
        colour = "k" if name == "unstopped" else f"C{i - ('unstopped' in series)}"
        places = [j + 0.8 * (i + 0.5) / len(series) - 0.4 for j in range(len(cells))]
        _points(axes, places, shares, colour, name, line="")
    names = [cell["domain"] + {True: "", False: "\n(never trained on)", None: ""}[cell["trained"]] for cell in cells]
    axes.set_xticks(range(len(cells)), names, fontsize=8)


def _points(axes, x: Iterable[float], shares: list[Data], colour: str, label: str, line: str = "-") -> None:
    """Shares in percent with their 95 % intervals."""
    middle = [100 * s["share"] for s in shares]
    error = [
        [max(0.0, m - 100 * s["low"]) for m, s in zip(middle, shares, strict=True)],
        [max(0.0, 100 * s["high"] - m) for m, s in zip(middle, shares, strict=True)],
    ]
    axes.errorbar(x, middle, error, fmt=f"o{line}", ms=4, lw=1, elinewidth=0.7, color=colour, label=label)


def _bin(low: float, high: float | None) -> str:
    if not low:
        return f"< {high:g}"
    return f">= {low:g}" if high is None else f"{low:g} to {high:g}"


DRAW: dict[str, Callable[[Data, str, Path], None]] = {
    "stops": draw_stops,
    "trajectories": draw_trajectories,
    "domains": draw_domains,
}
