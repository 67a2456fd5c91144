"""The largest batch that fits, from few compiles: memory grows about as the rows do."""

import bisect
from collections.abc import Callable

from lrd_jax.plan.compiling import Compiled, TooLarge

ROWS = (1, 2, 3, *(few << doubled for doubled in range(9) for few in (4, 5, 6, 7)), 2048)  # that are tried, of a part
_FIRST = 8


def largest(
    compile_rows: Callable[[int], Compiled | TooLarge], *, held: int, room: int
) -> tuple[int, Compiled] | TooLarge:
    """The largest of `ROWS` that fits, by compiling it and the next one, which does not.

    Args:
      compile_rows: of the rows of a part of the batch.
      held: bytes that no rows at all take.
      room: bytes of a device.

    Returns:
      The rows and what was compiled, or what one row would take.
    """
    fits, fails, at = -1, len(ROWS), ROWS.index(_FIRST)
    best, worst = None, TooLarge(held)
    while True:
        result = compile_rows(ROWS[at])
        if isinstance(result, TooLarge):
            fails, worst = at, result
        else:
            fits, best = at, result
        if fails - fits == 1:
            return worst if best is None else (ROWS[fits], best)
        slope = max((result.total - held) / ROWS[at], 1.0)  # of all rows: where logits are cut in chunks it bends
        guess = bisect.bisect_right(ROWS, (room - held) / slope) - 1
        at = min(max(guess, fits + 1), fails - 1)
