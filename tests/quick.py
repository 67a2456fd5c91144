"""What `-m "not slow"`, and what a run without `-m`, keeps of tests that are many."""

from collections.abc import Iterable

import pytest


def some_quick(cases: Iterable, quick: int) -> list:
    """Cases for `parametrize`: all but `quick` of them, evenly spread, are marked slow."""
    cases = list(cases)
    kept = _spread(len(cases), quick)
    return [pytest.param(case, marks=() if i in kept else pytest.mark.slow) for i, case in enumerate(cases)]


def some_always(cases: Iterable, always: int) -> list:
    """Cases for `parametrize`: all but `always` of them, evenly spread, are exhaustive; the first of those is quick."""
    cases = list(cases)
    first, *more = _spread(len(cases), always)
    marks = {first: (), **dict.fromkeys(more, (pytest.mark.slow,))}
    others = [pytest.mark.slow, pytest.mark.exhaustive]
    return [pytest.param(case, marks=marks.get(i, others)) for i, case in enumerate(cases)]


def _spread(count: int, some: int) -> list[int]:
    return [i * count // some for i in range(some)]
