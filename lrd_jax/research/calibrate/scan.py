"""The scan: every combination of settings measured on the same prompts, their front, and its knee."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import numpy as np

from lrd_jax.research.calibrate.judge import Judge
from lrd_jax.research.calibrate.outcomes import Outcome, Source
from lrd_jax.research.calibrate.tuning import Tuning
from lrd_jax.research.statistics import front


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One setting, measured.

    Attributes:
      texts: of every prompt's answer.
      counts: forwards of every prompt.
      agreement: share of answers whose text is that of the reference, the base decoder without stops.
      accuracy: share of right answers; None where nothing checks them.
    """

    tuning: Tuning
    texts: tuple[str, ...]
    counts: tuple[int, ...]
    agreement: float
    accuracy: float | None

    @property
    def forwards(self) -> float:
        """Mean of a prompt."""
        return float(np.mean(self.counts))

    @property
    def quality(self) -> float:
        """Accuracy where answers can be checked, else agreement."""
        return self.agreement if self.accuracy is None else self.accuracy


def grid(
    r_f: Iterable[float],
    tau_refine: Iterable[float],
    tau_decode: Iterable[float | None],
    max_entropy: Iterable[float | None],
    reduce: Iterable[str],
    scope: Iterable[str],
) -> list[Tuning]:
    """Every combination once, those of one r_f together."""
    names = ("r_f", "tau_refine", "reduce", "scope", "tau_decode", "max_entropy")
    values = map(dict.fromkeys, (r_f, tau_refine, reduce, scope, tau_decode, max_entropy))
    return [Tuning(**dict(zip(names, found, strict=True))) for found in itertools.product(*values)]


def changed(texts: tuple[str, ...], others: tuple[str, ...]) -> int:
    """How many differ."""
    return sum(text != other for text, other in zip(texts, others, strict=True))


def measure(tuning: Tuning, outcomes: list[Outcome], judge: Judge, reference: Point | None = None) -> Point:
    """The point of a setting from its outcomes; without a reference it is the reference."""
    texts = tuple(judge.text(tokens) for tokens, _ in outcomes)
    right = [judge.right(row, text) for row, text in enumerate(texts)] if judge.checks else None
    return Point(
        tuning=tuning,
        texts=texts,
        counts=tuple(forwards for _, forwards in outcomes),
        agreement=1.0 if reference is None else 1 - changed(texts, reference.texts) / len(texts),
        accuracy=None if right is None else float(np.mean(right)),
    )


def scan(
    source: Source,
    tunings: list[Tuning],
    judge: Judge,
    reference: Point,
    say: Callable[[str], None] = lambda words: None,
) -> list[Point]:
    """A point for every setting, in their order; those of one r_f stand together."""
    points = []
    for _, group in itertools.groupby(tunings, key=lambda tuning: tuning.r_f):
        group = list(group)
        say(f"decoding for settings {len(points) + 1} to {len(points) + len(group)} of {len(tunings)}")
        source.prepare(group)
        for tuning in group:
            say(f"setting {len(points) + 1} of {len(tunings)}, {source.decodes} decodes of a prompt")
            points.append(measure(tuning, source.outcomes(tuning), judge, reference))
    return points


def ahead(points: list[Point]) -> list[Point]:
    """The points that no other beats in forwards without losing quality, cheapest first."""
    return [points[i] for i in front([(point.forwards, point.quality) for point in points])]


def knee(points: list[Point], max_loss: float) -> Point:
    """Where the front bends: its point farthest above the line between its ends, both axes taken from 0 to 1.

    Below the knee a forward saved costs more quality than on average, above it one spent gains less. On a tie the
    better answers win.

    Args:
      points: the front, cheapest first.
      max_loss: it is looked at no deeper than this below its best quality: where it bends among settings that
        nobody would use says nothing.
    """
    points = [point for point in points if point.quality >= points[-1].quality - max_loss]
    first, last = points[0], points[-1]
    cost, gain = last.forwards - first.forwards or 1.0, last.quality - first.quality or 1.0

    def height(point: Point) -> float:
        return (point.quality - first.quality) / gain - (point.forwards - first.forwards) / cost

    return max(points, key=lambda point: (round(height(point), 9), point.quality))
