"""Tables as Markdown, and what their cells say."""

from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose cells are text already; without a newline at its end."""
    rule = "|" + "---|" * len(head)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def percent(share: float, low: float, high: float) -> str:
    """A share with its interval, in percent."""
    return f"{100 * share:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def whole_percent(share: Mapping[str, float]) -> str:
    """A share as `lrd_jax.research.statistics.share` gives it, in whole percent with its interval."""
    return "{:.0f} ({:.0f}-{:.0f})".format(*(100 * share[name] for name in ("share", "low", "high")))


def tally(counts: Mapping[str, int]) -> str:
    """Names with their counts, in the names' order."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
