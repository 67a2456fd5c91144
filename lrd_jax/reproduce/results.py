"""The cells of a results folder, as tables and pictures ask for them."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lrd_jax.evaluate import TASKS_BY_DEFAULT, cell_key
from lrd_jax.reproduce.decoders import BASELINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table or a figure of one setting: as what JSON can hold, as a Markdown table, as a picture."""

    data: Any
    markdown: str
    figure: "Figure | None" = None


@dataclasses.dataclass(frozen=True)
class Setting:
    """The cells of one model on one canvas.

    Attributes:
      cells: by decoder, those of different numbers of problems, the most problems last.
    """

    model: str
    canvas: int
    cells: dict[str, list[dict]]

    def pick(self, decoder: str, field: str = "accuracy") -> dict | None:
        """The decoder's cell of the most problems that holds the field."""
        held = [cell for cell in self.cells.get(decoder, ()) if field in cell]
        return held[-1] if held else None

    def present(self, decoders: Iterable[str]) -> list[dict]:
        """Each decoder's cell of the most problems, where there is one."""
        return [cell for decoder in dict.fromkeys(decoders) if (cell := self.pick(decoder)) is not None]

    @property
    def baseline(self) -> dict | None:
        return self.pick(BASELINE)


def settings(cells: Iterable[dict], models: tuple[str, ...], tasks: tuple[str, ...]) -> list[Setting]:
    """The cells of these models and tasks by model and canvas; of cells of equal keys the last counts."""
    newest = {cell_key(cell): cell for cell in cells}.values()
    mine = [c for c in newest if c["model"] in models and tuple(c.get("tasks", TASKS_BY_DEFAULT)) == tasks]
    out = []
    for model, canvas in sorted({(c["model"], c["canvas"]) for c in mine}, key=lambda k: (models.index(k[0]), k[1])):
        by_decoder: dict[str, list[dict]] = {}
        for cell in sorted(mine, key=lambda c: c["problems"]):
            if (cell["model"], cell["canvas"]) == (model, canvas):
                by_decoder.setdefault(cell["decoder"], []).append(cell)
        out.append(Setting(model, canvas, by_decoder))
    return out


def milliseconds(cell: dict) -> float:
    """Wall time a problem."""
    return 1000 * cell["seconds"] / cell["problems"]


def difference(cell: dict, reference: dict) -> tuple[float, float, float]:
    """The accuracy of `cell` less that of `reference`, and its 95 % interval (Newcombe 1998, method 10).

    The interval is that of two independent samples; on the same problems it is wider than need be.
    """
    p, q = cell["accuracy"], reference["accuracy"]
    below = ((p - cell["low"]) ** 2 + (reference["high"] - q) ** 2) ** 0.5
    above = ((cell["high"] - p) ** 2 + (q - reference["low"]) ** 2) ** 0.5
    return p - q, p - q - below, p - q + above
