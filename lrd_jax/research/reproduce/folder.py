"""The cells of a results folder, as tables and pictures ask for them."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lrd_jax.decoding.text_form import to_table
from lrd_jax.research.cells import TASKS_BY_DEFAULT, config_key
from lrd_jax.research.reproduce.exhibits import KNOWN

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
      times: milliseconds of a forward of one row, of the decoders that were timed in turns.
    """

    model: str
    canvas: int
    cells: dict[str, list[dict]]
    times: dict[str, float]

    @property
    def yours(self) -> tuple[str, ...]:
        """Decoders that are none of the package's."""
        return tuple(name for name in self.cells if name not in KNOWN)

    def pick(self, decoder: str, field: str = "accuracy") -> dict | None:
        """The decoder's cell of the most problems that holds the field."""
        held = [cell for cell in self.cells.get(decoder, ()) if field in cell]
        return held[-1] if held else None

    def present(self, decoders: Iterable[str]) -> list[dict]:
        """Each decoder's cell of the most problems, where there is one."""
        return [cell for decoder in dict.fromkeys(decoders) if (cell := self.pick(decoder)) is not None]

    def fewer(self, cell: dict, reference: dict | None) -> float | None:
        """How many times as many forwards the reference takes."""
        return None if reference is None else reference["forwards"] / cell["forwards"]

    def faster(self, cell: dict, reference: dict | None) -> float | None:
        """How many times as much time the forwards of the reference take, where both were timed."""
        mine, other = self.milliseconds(cell), None if reference is None else self.milliseconds(reference)
        return None if mine is None or other is None else other / mine

    def milliseconds(self, cell: dict) -> float | None:
        """What a problem's forwards take, where the decoder was timed."""
        each = self.times.get(cell["decoder"])
        return None if each is None else each * cell["forwards"]


def settings(
    cells: Iterable[dict],
    times: dict[tuple[str, int, str | None], dict[str, float]],
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    dtype: str | None = None,
    seed: int = 1,
) -> list[Setting]:
    """The cells of these models, tasks, dtype and seed by model and canvas; not those of what a name meant once."""
    mine = [
        cell
        for cell in cells
        if cell["model"] in models
        and tuple(cell.get("tasks", TASKS_BY_DEFAULT)) == tasks
        and cell.get("dtype") == dtype
        and cell["seed"] == seed
        and _is_current(cell)
    ]
    out = []
    for model, canvas in sorted({(c["model"], c["canvas"]) for c in mine}, key=lambda k: (models.index(k[0]), k[1])):
        by_decoder: dict[str, list[dict]] = {}
        for cell in sorted(mine, key=lambda c: c["problems"]):
            if (cell["model"], cell["canvas"]) == (model, canvas):
                by_decoder.setdefault(cell["decoder"], []).append(cell)
        out.append(Setting(model, canvas, by_decoder, times.get((model, canvas, dtype), {})))
    return out


def _is_current(cell: dict) -> bool:
    """Whether the decoder's name still means what was measured; a cell without a config is taken at its word."""
    name, key = cell["decoder"], config_key(cell)
    return key is None or name not in KNOWN or key == _meaning(name, cell["canvas"])


@functools.cache
def _meaning(decoder: str, canvas: int) -> str | None:
    return config_key({"config": to_table(KNOWN[decoder](canvas))})
