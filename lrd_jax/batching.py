"""Batches of one size, so that what runs them compiles once."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def filled(items: Sequence[T], size: int) -> list[T]:
    """Up to `size` items, brought to `size` by copies of the first."""
    return [*items, *[items[0]] * (size - len(items))]


def batches(items: Sequence[T], size: int) -> Iterator[tuple[list[T], int]]:
    """All items in parts of `size`, the last one `filled`, and how many of each part count."""
    for start in range(0, len(items), size):
        part = items[start : start + size]
        yield filled(part, size), len(part)
