"""What a run's records add up to, and its speed relative to the baseline's on the problems that both answered."""

import collections
import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from lrd_jax.research.benchmarks.records import Record
from lrd_jax.research.markdown import percent, table, tally
from lrd_jax.research.statistics import wilson


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """One run in figures.

    Attributes:
      accuracy, low, high: share of right answers and its 95 % interval (Wilson).
      forwards, refine_forwards, effective_tokens, seconds: means over the samples.
      tokens_per_second: effective tokens over seconds, both summed; None where nothing was decoded.
      speedup: the baseline's seconds over this run's, on the samples that both answered; None without a baseline.
      fewer_forwards: the same of forwards.
    """

    samples: int
    right: int
    accuracy: float
    low: float
    high: float
    forwards: float
    refine_forwards: float
    effective_tokens: float
    seconds: float
    tokens_per_second: float | None
    stop_reasons: dict[str, int]
    speedup: float | None
    fewer_forwards: float | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def summarize(records: Sequence[Record], baseline: Sequence[Record] = ()) -> Summary:
    """Figures of at least one graded record.

    Args:
      baseline: records of the run to compare the speed with.
    """
    right = sum(bool(r.correct) for r in records)
    low, high = wilson(right, len(records))
    seconds, tokens = sum(r.seconds for r in records), sum(r.effective_tokens for r in records)
    theirs = {r.key: r for r in baseline}
    pairs = [(theirs[r.key], r) for r in records if r.key in theirs]
    return Summary(
        samples=len(records),
        right=right,
        accuracy=right / len(records),
        low=low,
        high=high,
        forwards=statistics.fmean(r.forwards for r in records),
        refine_forwards=statistics.fmean(r.refine_forwards for r in records),
        effective_tokens=statistics.fmean(r.effective_tokens for r in records),
        seconds=seconds / len(records),
        tokens_per_second=tokens / seconds if seconds else None,
        stop_reasons=dict(collections.Counter(r.stop_reason for r in records)),
        speedup=_ratio([(a.seconds, b.seconds) for a, b in pairs]),
        fewer_forwards=_ratio([(a.forwards, b.forwards) for a, b in pairs]),
    )


def _ratio(pairs: list[tuple[float, float]]) -> float | None:
    ours = sum(b for _, b in pairs)
    return sum(a for a, _ in pairs) / ours if ours else None


def markdown(rows: Sequence[tuple[str, Summary]]) -> str:
    """Named runs as a Markdown table."""
    head = [
        "run",
        "samples",
        "accuracy % (95 %)",
        "forwards",
        "refine",
        "effective tokens",
        "tokens/s",
        "speed",
        "ends",
    ]
    lines = [
        [
            name,
            str(s.samples),
            percent(s.accuracy, s.low, s.high),
            *(f"{mean:.1f}" for mean in (s.forwards, s.refine_forwards, s.effective_tokens)),
            _number(s.tokens_per_second),
            _number(s.speedup, "x"),
            tally(s.stop_reasons),
        ]
        for name, s in rows
    ]
    return table(head, lines)


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.2f}{unit}"
