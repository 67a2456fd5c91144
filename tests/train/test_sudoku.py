"""Small Sudoku: single solutions by a solver of the tests' own, bands of givens, a split that no symmetry crosses."""

import itertools
import operator
import random

import pytest

from lrd_jax.tasks import EMBEDDED, TASKS, check, problems
from lrd_jax.tasks.sudoku import GIVENS_4, GIVENS_6, SQUARE_4, SQUARE_6
from lrd_jax.tasks.tokenizer import build_tokenizer

KINDS = {"sudoku4": (SQUARE_4, GIVENS_4), "sudoku6": (SQUARE_6, GIVENS_6)}
each_kind = pytest.mark.parametrize("name", KINDS)


def read(problem):
    head, cells = problem.prompt.split(": ")
    assert head == f"Square {problem.task[-1]}"
    return [int(n) for n in cells.split()], [int(n) for n in problem.answer.split()]


def peers(square):
    """The other cells of each cell's row, column and box."""
    height, width = square.box
    cells = [(r, c, (r // height, c // width)) for r in range(square.side) for c in range(square.side)]
    return [
        [j for j, other in enumerate(cells) if other != cell and any(map(operator.eq, cell, other))] for cell in cells
    ]


def solutions(square, puzzle):
    """All of them, by trying every number in the cell with the fewest."""
    near = peers(square)

    def options(cells, i):
        return [n for n in range(1, square.side + 1) if all(cells[j] != n for j in near[i])]

    def search(cells):
        empty = [i for i, n in enumerate(cells) if n == 0]
        if not empty:
            yield cells
            return
        i = min(empty, key=lambda i: len(options(cells, i)))
        for n in options(cells, i):
            yield from search([*cells[:i], n, *cells[i + 1 :]])

    return search(list(puzzle))


@each_kind
@pytest.mark.parametrize("grade", range(1, 5))
def test_a_puzzle_has_its_answer_as_only_solution_and_the_givens_of_its_grade(name, grade):
    square, givens = KINDS[name]
    for problem in problems(name, "train", 0, 15, grade):
        puzzle, answer = read(problem)
        assert list(itertools.islice(solutions(square, puzzle), 2)) == [answer]
        low, high = givens[grade - 1]
        assert low <= sum(n != 0 for n in puzzle) <= high


@each_kind
def test_every_number_of_givens_occurs(name):
    _, givens = KINDS[name]
    counts = {sum(n != 0 for n in read(problem)[0]) for problem in problems(name, "train", 0, 400)}
    assert counts == set(range(givens[-1][0], givens[0][1] + 1))


@each_kind
def test_no_given_of_a_smallest_puzzle_can_be_left_out(name):
    square, _ = KINDS[name]
    solution, needed = square.smallest(3)
    for place in needed:
        puzzle = [n if i in needed - {place} else 0 for i, n in enumerate(solution)]
        assert len(list(itertools.islice(solutions(square, puzzle), 2))) == 2


def image(square, rng, solution, puzzle):
    """The same puzzle turned about and renamed."""
    places, names = square.symmetry(rng), [0, *rng.sample(range(1, square.side + 1), square.side)]
    return [names[solution[p]] for p in places], [names[puzzle[p]] for p in places]


@each_kind
def test_the_canonical_form_is_that_of_every_image_and_of_nothing_else(name):
    square, _ = KINDS[name]
    rng = random.Random(0)
    for problem in problems(name, "train", 0, 5):
        puzzle, answer = read(problem)
        other, turned = image(square, rng, answer, puzzle)
        assert (other, turned) != (answer, puzzle)
        assert square.canonical(other, turned) == square.canonical(answer, puzzle)
        fewer = [0, *puzzle[1:]] if puzzle[0] else [answer[0], *puzzle[1:]]
        assert square.canonical(answer, fewer) != square.canonical(answer, puzzle)
    assert len(square.symmetries) == {4: 128, 6: 3456}[square.side]


def test_there_are_two_full_squares_of_4_and_more_of_6():
    assert len({SQUARE_4.canonical(SQUARE_4.smallest(i)[0]) for i in range(60)}) == 2
    assert 20 < len({SQUARE_6.canonical(SQUARE_6.smallest(i)[0]) for i in range(60)}) <= 49


@each_kind
def test_an_image_is_in_the_same_split(name):
    task, (square, _) = TASKS[name], KINDS[name]
    rng = random.Random(1)
    for problem in problems(name, "held-out", 0, 5):
        puzzle, answer = read(problem)
        other, turned = image(square, rng, answer, puzzle)
        again = type(problem)(
            prompt=f"Square {square.side}: {' '.join(map(str, turned))}",
            answer=" ".join(map(str, other)),
            task=name,
            grade=problem.grade,
        )
        assert task.split_by(again) == task.split_by(problem)


@each_kind
def test_the_splits_share_nothing_they_are_split_by(name):
    train, held = (
        {TASKS[name].split_by(p) for p in problems(name, split, 0, n)}
        for split, n in (("train", 600), ("held-out", 100))
    )
    assert train and held and not train & held


@each_kind
@pytest.mark.parametrize(
    "spoil", [lambda a: "", lambda a: a[:-2], lambda a: f"{a} 1", lambda a: a[::-1], lambda a: "?"]
)
def test_a_wrong_square_is_rejected(name, spoil):
    problem = problems(name, "held-out", 0, 1)[0]
    assert check(problem, problem.answer) and check(problem, f" {problem.answer}\n")
    assert not check(problem, spoil(problem.answer))


def test_the_embedded_models_vocabulary_suffices():
    both = [build_tokenizer(tuple(TASKS[name] for name in names), 300).get_vocab() for names in (EMBEDDED, TASKS)]
    assert both[0] == both[1] and len(both[0]) == 145


@each_kind
def test_prompt_and_answer_have_a_token_a_cell(name):
    tokenizer = build_tokenizer(tuple(TASKS.values()), 300)
    problem = problems(name, "train", 0, 1)[0]
    cells = KINDS[name][0].side ** 2
    lengths = [len(tokenizer(text)["input_ids"]) for text in (problem.prompt, problem.answer)]
    assert lengths == [3 + cells, cells]
