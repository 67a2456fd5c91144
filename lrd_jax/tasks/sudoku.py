"""Small Sudoku, 4 x 4 and 6 x 6: a square with some numbers given, answered by the one square that they determine.

    Square 4: 0 4 0 1 0 2 0 0 0 0 4 0 0 3 1 0
    3 4 2 1 1 2 3 4 2 1 4 3 4 3 1 2

0 is an empty cell. Boxes are 2 x 2 cells, or 2 rows of 3. Cells follow each other without signs between them, so that
those of the answer stand at a constant distance from those of the prompt.

The grade is a band of the number of givens, fewest last. An exact solver digs some hundred smallest puzzles, once;
every problem is one of them with more givens, under a random symmetry and new names: a single solution stays single.
"""

import functools
import random

from lrd_jax.tasks.problem import Problem, Task
from lrd_jax.tasks.square import EMPTY, Square

_SMALLEST = 512  # puzzles that problems are made of

SQUARE_4, SQUARE_6 = Square(4, (2, 2)), Square(6, (2, 3))
GIVENS_4 = ((11, 12), (9, 10), (7, 8), (5, 6))  # fewest and most of each grade
GIVENS_6 = ((22, 25), (18, 21), (14, 17), (10, 13))


def generate(square: Square, givens: tuple[tuple[int, int], ...], rng: random.Random, grade: int) -> Problem:
    """A puzzle with as many givens as the grade has, each number of them equally often."""
    wanted = rng.randint(*givens[grade - 1])
    while True:
        solution, needed = square.smallest(rng.randrange(_SMALLEST))
        if len(needed) <= wanted:
            break
    spare = [place for place in range(len(solution)) if place not in needed]
    given = needed.union(rng.sample(spare, wanted - len(needed)))
    names = (EMPTY, *rng.sample(range(1, square.side + 1), square.side))
    places = square.symmetry(rng)
    answer = [names[solution[place]] for place in places]
    puzzle = [n if place in given else EMPTY for place, n in zip(places, answer, strict=True)]
    return Problem(
        prompt=f"Square {square.side}: {' '.join(map(str, puzzle))}",
        answer=" ".join(map(str, answer)),
        task=f"sudoku{square.side}",
        grade=grade,
    )


def check(problem: Problem, text: str) -> bool:
    """Whether the text is the solution and nothing else."""
    return text.split() == problem.answer.split()


def puzzle_of_4(problem: Problem) -> str:
    """A puzzle up to symmetry: there are only two full squares of 4 x 4, so that those cannot be held out."""
    _, cells = problem.prompt.split(": ")
    return SQUARE_4.canonical(_numbers(problem.answer), _numbers(cells))


def grid_of_6(problem: Problem) -> str:
    """A full square up to symmetry: there are 49 of 6 x 6, of which five are held out, a sixth of all problems."""
    cells = _numbers(problem.answer)
    names = {n: i for i, n in enumerate(cells[:6], start=1)}
    rows = [tuple(names[n] for n in cells[i : i + 6]) for i in range(0, 36, 6)]
    lower = sorted((sorted(rows[2:4]), sorted(rows[4:])))  # nothing new, and fewer squares to remember
    return _canonical_6((*rows[:2], *lower[0], *lower[1]))


@functools.cache
def _canonical_6(rows: tuple[tuple[int, ...], ...]) -> str:
    return SQUARE_6.canonical([n for row in rows for n in row])


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


SUDOKU_4 = Task(
    name="sudoku4",
    grades=(1, 2, 3, 4),
    generate=functools.partial(generate, SQUARE_4, GIVENS_4),
    check=check,
    split_by=puzzle_of_4,
)
SUDOKU_6 = Task(
    name="sudoku6",
    grades=(1, 2, 3, 4),
    generate=functools.partial(generate, SQUARE_6, GIVENS_6),
    check=check,
    split_by=grid_of_6,
)
