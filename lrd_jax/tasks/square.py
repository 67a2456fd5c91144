"""Squares whose rows, columns and boxes hold each number once: an exact solver, smallest puzzles, and symmetries.

A row of a solution is a line, one of the few orders of the numbers, and a set of lines is one integer with a bit each.
"""

import dataclasses
import functools
import itertools
import random
from collections.abc import Sequence

import numpy as np

EMPTY = 0  # in place of a number


@dataclasses.dataclass(frozen=True)
class Square:
    """One size.

    Attributes:
      side: cells in a row, a column and a box, and the largest number.
      box: rows and columns of a box.
    """

    side: int
    box: tuple[int, int]

    @functools.cached_property
    def lines(self) -> np.ndarray:
        """uint8 `[M, side]`."""
        return np.array(list(itertools.permutations(range(1, self.side + 1))), np.uint8)

    @functools.cached_property
    def having(self) -> list[list[int]]:
        """The lines with a number in a column, by column and number; with `EMPTY`, all lines."""
        numbers = np.arange(1, self.side + 1)
        found = [[_bits(flags) for flags in column == numbers[:, None]] for column in self.lines.T]
        return [[(1 << len(self.lines)) - 1, *of_column] for of_column in found]

    @functools.cached_property
    def beside(self) -> list[tuple[int, int]]:
        """By line, the lines that another row may be: one of other boxes, and one of the same boxes."""
        apart = (self.lines[:, None] != self.lines[None]).all(-1)
        parts = (1 << self.lines).reshape(len(self.lines), -1, self.box[1]).sum(-1)  # a box's numbers as bits
        unlike = ((parts[:, None] & parts[None]) == 0).all(-1)
        return [(_bits(others), _bits(same)) for others, same in zip(apart, apart & unlike, strict=True)]

    def rows(self, cells: Sequence[int]) -> dict[int, int]:
        """The lines that agree with the givens, by row."""
        found = {}
        for row in range(self.side):
            givens = cells[row * self.side : (row + 1) * self.side]
            found[row] = functools.reduce(int.__and__, (self.having[c][n] for c, n in enumerate(givens)))
        return found

    def solve(self, rows: dict[int, int], rng: random.Random | None = None) -> dict[int, int] | None:
        """One line for each row among those allowed, with `rng` any such; None if there is no solution."""
        if not rows:
            return {}
        row = min(rows, key=lambda r: rows[r].bit_count())
        allowed = _positions(rows[row])
        if rng is not None:
            rng.shuffle(allowed)
        for line in allowed:
            left = {
                other: lines & self.beside[line][other // self.box[0] == row // self.box[0]]
                for other, lines in rows.items()
                if other != row
            }
            if all(left.values()) and (rest := self.solve(left, rng)) is not None:
                return {row: line, **rest}
        return None

    def full(self, rng: random.Random) -> list[int]:
        """A random solution, row by row."""
        found = self.solve(self.rows((EMPTY,) * self.side**2), rng)
        return [n for row in range(self.side) for n in self.lines[found[row]].tolist()]

    @functools.cache  # noqa: B019  there are two squares, and they stay
    def smallest(self, index: int) -> tuple[list[int], frozenset[int]]:
        """A solution, and places whose numbers leave no other, none of them needlessly; a function of the index."""
        rng = random.Random(f"square/{self.side}/{index}")
        solution = self.full(rng)
        cells = list(solution)
        for place in rng.sample(range(self.side**2), self.side**2):
            row, column = divmod(place, self.side)
            cells[place] = EMPTY
            others = self.rows(cells)
            others[row] &= ~self.having[column][solution[place]]
            if all(others.values()) and self.solve(others) is not None:
                cells[place] = solution[place]
        return solution, frozenset(place for place, n in enumerate(cells) if n != EMPTY)

    def symmetry(self, rng: random.Random) -> list[int]:
        """Which place comes to each place under a random symmetry."""
        rows, columns = (_shuffled(rng, self.side, size) for size in self.box)
        if self.box[0] == self.box[1] and rng.random() < 0.5:
            return [row * self.side + column for column in columns for row in rows]
        return [row * self.side + column for row in rows for column in columns]

    @functools.cached_property
    def symmetries(self) -> np.ndarray:
        """All of them, int `[S, side * side]`."""
        rows, columns = (np.array(_orders(self.side, size)) for size in self.box)
        places = (rows[:, None, :, None] * self.side + columns[None, :, None, :]).reshape(-1, self.side, self.side)
        if self.box[0] == self.box[1]:
            places = np.concatenate([places, places.swapaxes(1, 2)])
        return places.reshape(len(places), -1)

    def canonical(self, solution: Sequence[int], puzzle: Sequence[int] | None = None) -> str:
        """Digits that two solutions share if, and only if, a symmetry and new names for the numbers make them equal.

        Args:
          puzzle: givens that are to become equal as well.
        """
        images = self._renamed(np.array(solution, np.uint8)[self.symmetries])
        if puzzle is not None:
            given = np.array(puzzle, np.uint8) != EMPTY
            images = np.concatenate([given[self.symmetries], images], axis=1)
        text, width = images.tobytes(), images.shape[1]
        return "".join(map(str, min(text[i : i + width] for i in range(0, len(text), width))))

    def _renamed(self, solutions: np.ndarray) -> np.ndarray:
        """`[S, side * side]` with the numbers of the first row made 1, 2, ... in their order."""
        names = np.empty((len(solutions), self.side + 1), np.uint8)
        np.put_along_axis(names, solutions[:, : self.side], np.arange(1, self.side + 1, dtype=np.uint8)[None], axis=1)
        return np.take_along_axis(names, solutions, axis=1)


def _bits(flags: np.ndarray) -> int:
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def _positions(bits: int) -> list[int]:
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def _shuffled(rng: random.Random, side: int, size: int) -> list[int]:
    """Rows or columns in any order that keeps bands of `size` together."""
    bands = rng.sample(range(0, side, size), side // size)
    return [line for band in bands for line in rng.sample(range(band, band + size), size)]


def _orders(side: int, size: int) -> list[list[int]]:
    """Every order that `_shuffled` can give."""
    within = [list(itertools.permutations(range(band, band + size))) for band in range(0, side, size)]
    return [
        list(itertools.chain(*chosen))
        for bands in itertools.permutations(within)
        for chosen in itertools.product(*bands)
    ]
