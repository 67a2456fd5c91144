"""What every setting of refinement and stop would have done, from as few decodes as can tell.

A stop changes nothing before it says yes, and refinement nothing but the forward at which a row begins to commit. So
the unstopped decodes of a row at one r_f differ only by that forward, and each is made once, whatever tau_refine,
reduction and scope led to it; any stop is then read off, without a decode.
"""

import numpy as np

from lrd_jax.calibrate.observe import Bench, Path, number_of
from lrd_jax.tuning import Tuning

Outcome = tuple[np.ndarray, int]  # tokens [G] and forwards of one row


class Replays:
    """Outcomes of any `Tuning`, on a canvas that is one block. Ask for small tau_refine first: their decodes tell most.

    Beyond one block a stop in the first changes what the second begins with, and nothing can be read off.
    """

    def __init__(self, bench: Bench):
        self._bench = bench
        self._paths: dict[tuple[int, float], dict[int, Path]] = {}  # by row and r_f, then by switch
        self.decodes = 0  # rows decoded so far

    def outcomes(self, tuning: Tuning) -> list[Outcome]:
        """What every row would answer, and with how many forwards."""
        stop = tuning.applied(self._bench.base).stop
        return [path.stopped(stop, number_of(tuning)) for path in self._found(tuning)]

    def forget(self) -> None:
        """Drops every decode: those of one r_f tell nothing about another."""
        self._paths = {}

    def _found(self, tuning: Tuning) -> list[Path]:
        """The unstopped decode of every row, by decoding those rows for which it is not known."""
        of_row = [self._paths.setdefault((row, tuning.r_f), {}) for row in range(self._bench.rows)]
        max_steps = self._bench.base.refine.max_steps
        missing = [row for row, paths in enumerate(of_row) if switch_of(paths, tuning, max_steps) not in paths]
        for row, path in zip(missing, self._bench.paths(missing, tuning), strict=True):
            of_row[row][path.switch] = path
        self.decodes += len(missing)
        return [paths[switch_of(paths, tuning, max_steps)] for paths in of_row]


def switch_of(paths: dict[int, Path], tuning: Tuning, max_steps: int) -> int | None:
    """The forward at which refinement would end (Eq. 6), as far as the longest refinement among the paths tells."""
    if not paths:
        return None
    longest = max(paths)
    settled = paths[longest].divergence[:longest, number_of(tuning)] < np.float32(tuning.tau_refine)
    if settled.any():
        return int(np.argmax(settled)) + 1
    return max_steps if longest == max_steps else None


class Decodes:
    """Outcomes of any `Tuning` by decoding every row anew: for canvases of several blocks."""

    def __init__(self, bench: Bench):
        self._bench = bench
        self.decodes = 0

    def outcomes(self, tuning: Tuning) -> list[Outcome]:
        self.decodes += self._bench.rows
        return self._bench.decoded(tuning)

    def forget(self) -> None:
        """There is nothing to drop."""


def source_of(bench: Bench) -> Replays | Decodes:
    """The cheapest source of exact outcomes for the bench's decoder."""
    one_block = bench.base.num_blocks == 1 and bench.base.refine.before == "block"
    return Replays(bench) if one_block else Decodes(bench)
