"""What every setting of refinement and stop would have done, from as few decodes as can tell.

A stop changes nothing before it says yes, and refinement nothing but the forward at which a row begins to commit. So
the unstopped decodes of a row at one r_f differ only by that forward, and each is made once, whatever tau_refine,
reduction and scope led to it; any stop is then read off, without a decode.
"""

from collections.abc import Iterable

import jax
import numpy as np

from lrd_jax.decoding.sight import Sight
from lrd_jax.research.calibrate.tunable import Path, Tunable, number_of
from lrd_jax.research.calibrate.tuning import Tuning
from lrd_jax.research.record import first_stop

Outcome = tuple[np.ndarray, int]  # tokens [G] and forwards of one row
Refinement = tuple[float, str, str]  # tau_refine, reduce and scope: what ends it


class Replays:
    """Outcomes of any `Tuning`, on a canvas that is one block.

    Beyond one block a stop in the first changes what the second begins with, and nothing can be read off.
    """

    def __init__(self, tunable: Tunable):
        self._tunable = tunable
        self._r_f: float | None = None
        self._paths: list[dict[int, Path]] = []  # of each row, by the forward at which it begins to commit
        self._switches: list[dict[Refinement, int]] = []  # of each row, which of its paths a refinement leads to
        self._stacked: dict[Refinement, tuple[list[Path], Sight]] = {}  # the paths of all rows together
        self.decodes = 0  # rows decoded so far

    def prepare(self, tunings: Iterable[Tuning]) -> None:
        """Makes the decodes that these settings, all of one r_f, are read off; those of another r_f are dropped."""
        by_refinement = {_refinement(tuning): tuning for tuning in tunings}
        rising = [by_refinement[key] for key in sorted(by_refinement)]  # a long refinement tells of shorter ones
        if rising[0].r_f != self._r_f:
            self._r_f, self._stacked = rising[0].r_f, {}
            self._paths, self._switches = ([{} for _ in range(self._tunable.rows)] for _ in range(2))
        while jobs := self._missing(rising):
            for (row, tuning), path in zip(jobs, self._tunable.paths(jobs), strict=True):
                switch = self._switches[row].setdefault(_refinement(tuning), path.switch)
                self._paths[row][switch] = path
            self.decodes += len(jobs)

    def _missing(self, tunings: list[Tuning]) -> list[tuple[int, Tuning]]:
        """For each row the first of the settings whose decode is not there."""
        jobs = []
        for row, paths in enumerate(self._paths):
            jobs += [(row, tuning) for tuning in tunings if self._switch(row, tuning) not in paths][:1]
        return jobs

    def outcomes(self, tuning: Tuning) -> list[Outcome]:
        """What every row would answer, and with how many forwards; the setting must be among the prepared."""
        paths, sight = self._refined(tuning)
        sight = sight.replace(divergence=np.stack([path.divergence[:, number_of(tuning)] for path in paths], axis=1))
        ends = first_stop(tuning.applied(self._tunable.base).stop, sight)
        return [path.outcome(at) for path, at in zip(paths, ends, strict=True)]

    def _refined(self, tuning: Tuning) -> tuple[list[Path], Sight]:
        """The paths of all rows under a setting's refinement, and their sights, arrays `[S, R]` and `[S, R, 1]`."""
        key = _refinement(tuning)
        if key not in self._stacked:
            paths = [paths[self._switch(row, tuning)] for row, paths in enumerate(self._paths)]
            sight = jax.tree.map(lambda *columns: np.stack(columns, axis=1), *(path.sight for path in paths))
            self._stacked[key] = paths, sight
        return self._stacked[key]

    def _switch(self, row: int, tuning: Tuning) -> int | None:
        known, key = self._switches[row], _refinement(tuning)
        if key not in known:
            switch = switch_of(self._paths[row], tuning, self._tunable.base.refine.max_steps)
            if switch is None:
                return None
            known[key] = switch
        return known[key]


def _refinement(tuning: Tuning) -> Refinement:
    return tuning.tau_refine, tuning.reduce, tuning.scope


def switch_of(paths: dict[int, Path], tuning: Tuning, max_steps: int) -> int | None:
    """The forward at which refinement would end (Eq. 6), as far as the longest refinement among the paths tells."""
    if not paths:
        return None
    longest = max(paths)
    settled = paths[longest].divergence[:longest, number_of(tuning)] < np.float32(tuning.tau_refine)
    if settled.any():
        return int(np.argmax(settled)) + 1
    return max_steps if longest == max_steps else None


class Settlings:
    """Outcomes of any `Tuning` of a decoder that settles and then commits all, on a canvas that is one block.

    It commits nothing before its refinement ends, so one decode of a row with all of its refinement tells of every end.
    """

    def __init__(self, tunable: Tunable):
        self._tunable = tunable
        self._r_f: float | None = None
        self._paths: list[Path] = []
        self.decodes = 0  # rows decoded so far

    def prepare(self, tunings: Iterable[Tuning]) -> None:
        """Makes the decodes that these settings, all of one r_f, are read off; those of another r_f are dropped."""
        tuning = next(iter(tunings)).unstopped
        if tuning.r_f != self._r_f:
            self._r_f = tuning.r_f
            self._paths = self._tunable.paths([(row, tuning) for row in range(self._tunable.rows)])
            self.decodes += self._tunable.rows

    def outcomes(self, tuning: Tuning) -> list[Outcome]:
        """What every row would answer, and with how many forwards; the setting must be among the prepared."""
        return [path.outcome(self._end(path, tuning)) for path in self._paths]

    def _end(self, path: Path, tuning: Tuning) -> int:
        settled = path.divergence[: path.forwards, number_of(tuning)] < np.float32(tuning.tau_refine)
        return int(np.argmax(settled)) if settled.any() else -1


class Decodes:
    """Outcomes of any `Tuning` by decoding every row anew: for canvases of several blocks."""

    def __init__(self, tunable: Tunable):
        self._tunable = tunable
        self.decodes = 0

    def prepare(self, tunings: Iterable[Tuning]) -> None:
        """There is nothing to make beforehand."""

    def outcomes(self, tuning: Tuning) -> list[Outcome]:
        self.decodes += self._tunable.rows
        return self._tunable.decoded(tuning)


Source = Replays | Settlings | Decodes


def source_of(tunable: Tunable) -> Source:
    """The cheapest source of exact outcomes for the decoder."""
    one_block = tunable.base.num_blocks == 1 and tunable.base.refine.before == "block"
    if not one_block:
        return Decodes(tunable)
    return Settlings(tunable) if Tuning.of(tunable.base).settles else Replays(tunable)
