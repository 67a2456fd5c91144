"""What `-m "not slow"`, and what a run without `-m`, keeps of tests that are many."""

from collections.abc import Iterable

import pytest


def some_quick(cases: Iterable, quick: int) -> list:
    """Cases for `parametrize`: all but `quick` of them, evenly spread, are marked slow."""
    cases = list(cases)
    kept = {i * len(cases) // quick for i in range(quick)}
    return [pytest.param(case, marks=() if i in kept else pytest.mark.slow) for i, case in enumerate(cases)]


def some_always(cases: Iterable, always: int) -> list:
    """Cases for `parametrize`: all but `always` of them, evenly spread, are exhaustive; the first of those is quick."""
    cases = list(cases)
    kept = [i * len(cases) // always for i in range(always)]
    marks = {i: [pytest.mark.slow] * (n > 0) for n, i in enumerate(kept)}
    others = [pytest.mark.slow, pytest.mark.exhaustive]
    return [pytest.param(case, marks=marks.get(i, others)) for i, case in enumerate(cases)]
