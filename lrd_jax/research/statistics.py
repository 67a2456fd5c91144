"""Proportions with their intervals, and which of several costs and qualities no other beats."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927)."""
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may lead outside


def share(flags: np.ndarray) -> dict[str, Any]:
    """A share with its 95 % interval."""
    low, high = wilson(int(flags.sum()), len(flags))
    return {"share": float(flags.mean()), "low": low, "high": high, "count": int(flags.sum()), "of": len(flags)}


def difference(cell: dict, reference: dict) -> tuple[float, float, float]:
    """The accuracy of `cell` less that of `reference`, and its 95 % interval (Newcombe 1998, method 10).

    It is that of paired samples where both cells, of one setting, say which of the same problems they answered; else
    that of independent ones, which on the same problems is wider than need be.
    """
    p, q = cell["accuracy"], reference["accuracy"]
    same = all(cell[field] == reference[field] for field in ("problems", "seed"))
    paired = same and all("right" in c for c in (cell, reference))
    phi = correlation(cell["right"], reference["right"]) if paired else 0.0
    low, high = p - cell["low"], cell["high"] - p
    other_low, other_high = q - reference["low"], reference["high"] - q
    below = (low**2 - 2 * phi * low * other_high + other_high**2) ** 0.5
    above = (high**2 - 2 * phi * high * other_low + other_low**2) ** 0.5
    return p - q, p - q - below, p - q + above


def correlation(right: str, other: str) -> float:
    """Of two strings of 0 and 1, corrected for continuity where it is positive, as Newcombe's method 10 has it."""
    pairs = collections.Counter(zip(right, other, strict=True))
    both, first, second, none = (pairs[key] for key in (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0")))
    margins = (both + first) * (second + none) * (both + second) * (first + none)
    cross = both * none - first * second
    if cross > 0:
        cross = max(cross - len(right) / 2, 0)
    return cross / margins**0.5 if margins else 0.0


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, quality) that no other point beats, cheapest first."""
    best, kept = float("-inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            kept.append(i)
    return kept
