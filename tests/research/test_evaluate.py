"""The evaluation: intervals, cells that are not run twice, and the options that it refuses."""

import dataclasses
import json

import pytest

from lrd_jax.research import evaluate
from lrd_jax.research.options import EvalTiny
from lrd_jax.research.statistics import wilson


def test_wilson_intervals_are_the_published_ones():
    """Newcombe (1998), table 1, method 3: 81 of 263, and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def small(tmp_path, **changes):
    options = {"models": ("lrd-tiny",), "canvases": (32,), "counts": (6,), "batch": 4, "only": ("plain, 8 a step",)}
    return EvalTiny(**{**options, "output": tmp_path / "cells.jsonl", **changes})


def test_cells_are_appended_and_not_run_again(tmp_path):
    config, reported = small(tmp_path), []
    cells = evaluate.run(config, reported.append)
    assert reported == cells
    assert cells[0]["forwards"] == 4.0
    assert cells[0]["right"].count("1") == sum(right for right, _ in cells[0]["grades"].values())
    assert (
        len(cells[0]["right"])
        == sum(cells[0]["stop_reasons"].values())
        == sum(n for _, n in cells[0]["grades"].values())
        == 6
    )
    with config.output.open("a") as file:
        file.write('{"model": "lrd-ti')  # as a run leaves it that was killed while writing
    assert evaluate.run(config, pytest.fail) == cells
    more = evaluate.run(dataclasses.replace(config, only=("plain, 8 a step", "threshold 0.9")), reported.append)
    assert [cell["decoder"] for cell in more] == ["plain, 8 a step", "threshold 0.9"]
    assert more[0] == cells[0]
    held = evaluate.cells_in(config.output).read().held
    assert list(held.values()) == more  # the line that was cut short took none with it


def test_the_table_says_what_was_counted():
    cell = {"model": "m", "canvas": 64, "decoder": "d", "problems": 20, "accuracy": 0.5, "low": 0.3, "high": 0.7}
    cell |= {"forwards": 3.25, "refine_forwards": 1.0, "seconds": 2.0, "stop_reasons": {"settled": 15, "finished": 5}}
    assert "| d | 50.0 (30.0-70.0) | 3.2 | 1.0 | 100.0 | finished 5, settled 15 |" in evaluate.markdown([cell])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": (1, 2)}, "one number for each"),
        ({"decoders": "all"}, "decoders='all' is unknown; choose one of table, scan"),
        ({"only": ("best",)}, "only=best is not in the set 'table'"),
    ],
)
def test_bad_options_are_named(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        evaluate.run(small(tmp_path, **changes))


def test_cells_are_json_lines(tmp_path):
    config = small(tmp_path, counts=(2,))
    evaluate.run(config)
    assert json.loads(config.output.read_text())["problems"] == 2
