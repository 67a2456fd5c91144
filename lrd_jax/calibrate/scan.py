"""The scan: every combination of settings measured on the same prompts, their front, and its knee."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import numpy as np

from lrd_jax.calibrate.data import Judge
from lrd_jax.calibrate.replay import Decodes, Outcome, Replays
from lrd_jax.tuning import Tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting, measured.

    Attributes:
      forwards: mean of a prompt.
      agreement: share of answers whose text is that of the reference, the base decoder without stops.
      accuracy: share of right answers; None where nothing checks them.
    """

    tuning: Tuning
    forwards: float
    agreement: float
    accuracy: float | None

    @property
    def quality(self) -> float:
        """Accuracy where answers can be checked, else agreement."""
        return self.agreement if self.accuracy is None else self.accuracy


def grid(
    r_f: Iterable[float],
    tau_refine: Iterable[float],
    tau_decode: Iterable[float],
    max_entropy: Iterable[float],
    reduce: Iterable[str],
    scope: Iterable[str],
) -> list[Tuning]:
    """Every combination, in the order in which `Replays` decodes least: by r_f, then by rising tau_refine."""
    names = ("r_f", "tau_refine", "reduce", "scope", "tau_decode", "max_entropy")
    values = (sorted(set(r_f)), sorted(set(tau_refine)), *map(dict.fromkeys, (reduce, scope, tau_decode, max_entropy)))
    return [Tuning(**dict(zip(names, found, strict=True))) for found in itertools.product(*values)]


def texts_of(outcomes: list[Outcome], judge: Judge) -> list[str]:
    """The texts of all rows."""
    return [judge.text(tokens) for tokens, _ in outcomes]


def measure(tuning: Tuning, outcomes: list[Outcome], reference: list[str], judge: Judge) -> Cell:
    """The cell of a setting from its outcomes and the reference's texts."""
    texts = texts_of(outcomes, judge)
    right = [judge.right(row, text) for row, text in enumerate(texts)] if judge.checks else None
    return Cell(
        tuning=tuning,
        forwards=float(np.mean([forwards for _, forwards in outcomes])),
        agreement=float(np.mean([text == other for text, other in zip(texts, reference, strict=True)])),
        accuracy=None if right is None else float(np.mean(right)),
    )


def scan(
    source: Replays | Decodes,
    tunings: list[Tuning],
    reference: list[str],
    judge: Judge,
    say: Callable[[str], None] = lambda words: None,
) -> list[Cell]:
    """A cell for every setting, in their order."""
    cells, r_f = [], None
    for number, tuning in enumerate(tunings, 1):
        if tuning.r_f != r_f:
            source.forget()
            r_f = tuning.r_f
        say(f"setting {number} of {len(tunings)}, {source.decodes} rows decoded")
        cells.append(measure(tuning, source.outcomes(tuning), reference, judge))
    return cells


def front(cells: list[Cell]) -> list[Cell]:
    """The cells that no other beats in forwards without losing quality, cheapest first."""
    best, kept = float("-inf"), []
    for cell in sorted(cells, key=lambda cell: (cell.forwards, -cell.quality)):
        if cell.quality > best:
            best = cell.quality
            kept.append(cell)
    return kept


def knee(ahead: list[Cell], max_loss: float) -> Cell:
    """Where the front bends: its cell farthest above the line between its ends, both axes taken from 0 to 1.

    Below the knee a forward saved costs more quality than on average, above it one spent gains less. On a tie the
    better answers win.

    Args:
      max_loss: the front is looked at no deeper than this below its best quality: where it bends among settings that
        nobody would use says nothing.
    """
    ahead = [cell for cell in ahead if cell.quality >= ahead[-1].quality - max_loss]
    first, last = ahead[0], ahead[-1]
    cost, gain = last.forwards - first.forwards or 1.0, last.quality - first.quality or 1.0

    def height(cell: Cell) -> float:
        return (cell.quality - first.quality) / gain - (cell.forwards - first.forwards) / cost

    return max(ahead, key=lambda cell: (round(height(cell), 9), cell.quality))
