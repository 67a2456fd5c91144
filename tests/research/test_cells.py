"""The evaluation: intervals, and cells that are not run twice."""

import json

import pytest

from lrd_jax.research import cells as stored
from lrd_jax.research.cells import Wanted
from lrd_jax.research.decoders import TABLE
from lrd_jax.research.statistics import wilson


def test_wilson_intervals_are_the_published_ones():
    """Newcombe (1998), table 1, method 3: 81 of 263, and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def measured(file, *names, problems=6, report=lambda cell: None, **changes):
    wanted = [Wanted(decoder=name, make=TABLE[name], canvas=32, problems=problems) for name in names]
    return stored.measure("lrd-tiny", wanted, output=file, batch=4, report=report, **changes)


@pytest.mark.slow
def test_cells_are_appended_and_not_run_again(tmp_path):
    file, reported = tmp_path / "cells.jsonl", []
    cells = measured(file, "plain, 8 a step", report=reported.append)
    assert reported == cells
    assert cells[0]["forwards"] == 4.0
    assert cells[0]["right"].count("1") == sum(right for right, _ in cells[0]["grades"].values())
    assert (
        len(cells[0]["right"])
        == sum(cells[0]["stop_reasons"].values())
        == sum(n for _, n in cells[0]["grades"].values())
        == 6
    )
    with file.open("a") as opened:
        opened.write('{"model": "lrd-ti')  # as a run leaves it that was killed while writing
    assert measured(file, "plain, 8 a step", report=pytest.fail) == cells
    more = measured(file, "plain, 8 a step", "threshold 0.9", report=reported.append)
    assert [cell["decoder"] for cell in more] == ["plain, 8 a step", "threshold 0.9"]
    assert more[0] == cells[0]
    held = stored.cells_in(file).read().held
    assert list(held.values()) == more  # the line that was cut short took none with it


def test_a_cell_is_of_a_config_and_a_dtype_not_of_a_name_alone():
    (four, eight) = (Wanted(decoder="d", make=TABLE[f"plain, {k} a step"], canvas=32, problems=6) for k in (4, 8))
    asked = {"seed": 1, "tasks": ("words", "code"), "dtype": None}
    keys = [stored.cell_key(one.cell("m", **asked)) for one in (four, eight)]
    keys.append(stored.cell_key(four.cell("m", **{**asked, "dtype": "bfloat16"})))
    assert len(set(keys)) == 3
    cell = four.cell("m", **asked)
    del cell["config"]["trace"]  # as one was written before the field was there
    assert stored.cell_key(cell) == keys[0]


def test_cells_are_json_lines(tmp_path):
    measured(tmp_path / "cells.jsonl", "plain, 8 a step", problems=2)
    assert json.loads((tmp_path / "cells.jsonl").read_text())["problems"] == 2
