"""What `-m "not slow"` keeps of tests that are many."""

from collections.abc import Iterable

import pytest


def some_quick(cases: Iterable, quick: int) -> list:
    """Cases for `parametrize`: all but `quick` of them, evenly spread, are marked slow."""
    cases = list(cases)
    kept = {i * len(cases) // quick for i in range(quick)}
    return [pytest.param(case, marks=() if i in kept else pytest.mark.slow) for i, case in enumerate(cases)]
