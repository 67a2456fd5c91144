"""The paper's tables and figures: what is measured for them, that nothing is run twice, and that all can be drawn."""

import json
import random
from pathlib import Path

import jax
import pytest

from lrd_jax.cli import main
from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.text_form import to_table
from lrd_jax.research.cells import cells_in
from lrd_jax.research.questions import source_of
from lrd_jax.research.reproduce import decoders
from lrd_jax.research.reproduce.exhibits import EXHIBITS, KNOWN, wanted
from lrd_jax.research.reproduce.field_claims import FIELD
from lrd_jax.research.reproduce.figures import settled_by
from lrd_jax.research.reproduce.folder import Setting, settings
from lrd_jax.research.reproduce.options import PAPER, WHAT, Reproduce
from lrd_jax.research.reproduce.reproduction import missing, reproduce
from lrd_jax.research.reproduce.show import SHOWS
from lrd_jax.research.reproduce.tables import table1, table3
from lrd_jax.research.reproduce.timing import times_of
from lrd_jax.research.statistics import difference, front, wilson

pytestmark = pytest.mark.slow

GROUPS = (decoders.FRONTS, decoders.FEEDBACK, decoders.NUCLEUS)
SETS = [
    *(exhibit.measured | exhibit.replayed for exhibit in EXHIBITS.values()),
    *(value for name, value in vars(decoders).items() if isinstance(value, dict) and name.isupper()),
    *(group for groups in GROUPS for group in groups.values()),
]
DOCS = Path(__file__).parents[2] / "docs" / "reproduction"


def cell(decoder, accuracy=0.8, problems=1000, **fields):
    low, high = wilson(round(accuracy * problems), problems)
    known = {"model": "m", "canvas": 64, "seed": 1, "forwards": 10.0, "refine_forwards": 2.0, "seconds": 5.0}
    return known | {"decoder": decoder, "accuracy": accuracy, "low": low, "high": high, "problems": problems} | fields


def steps(count):
    names = ("distance", "open_distance", "distance_low", "distance_high", "divergence", "stopped", "refining")
    return {name: [1 / (i + 1) for i in range(count)] for name in names} | {
        "switch": [2.0, 2.0, 3.0],
        "mixed_share": 0.2,
        "mean_alpha": 0.1,
    }


def every_cell(options):
    """A cell of everything that the options ask for, with made-up numbers."""
    rng = random.Random(0)
    costly = {"effective_tokens": 20.0, "refinements": {"2": 7, "3": 2, "20": 1}, "steps": steps(12)}
    for one in wanted(options):
        numbers = {"accuracy": rng.uniform(0.5, 0.9), "forwards": rng.uniform(2, 64)}
        config = to_table(one.make(one.canvas))
        yield cell(one.decoder, canvas=one.canvas, problems=one.problems, config=config, **costly, **numbers)


@pytest.fixture
def options(tmp_path):
    cells = (tmp_path / "cells.jsonl",)
    return Reproduce(model=("m",), what=WHAT, output=tmp_path / "out", cells=cells, redraw=True)


@pytest.fixture(autouse=True)
def cells_file(tmp_path):
    (tmp_path / "cells.jsonl").write_text("")
    return tmp_path / "cells.jsonl"


def write(file, cells):
    file.write_text("".join(json.dumps(c) + "\n" for c in cells))


def test_one_name_is_one_decoder():
    known = {}
    for decoder_set in SETS:
        for name, make in decoder_set.items():
            if callable(make) and not isinstance(make, Part):
                leaves = (jax.tree.leaves(make(64)), jax.tree.structure(make(64)))
                assert known.setdefault(name, leaves) == leaves, name


def test_every_cell_of_the_docs_is_of_a_decoder_that_is_there():
    known = {name for decoder_set in SETS for name in decoder_set}
    cells = cells_in(DOCS / "cells.jsonl").read().held.values()
    assert len(cells) > 200
    shown = settings(cells, {}, ("lrd-tiny-soft", "lrd-tiny"), ("words", "code"))
    assert sum(len(found) for setting in shown for found in setting.cells.values()) == len(cells)  # no name has moved
    assert {cell["decoder"] for cell in cells} <= known
    assert {name for times in times_of(DOCS / "times.jsonl").values() for name in times} <= known


def test_everything_that_can_be_asked_for_is_measured_and_shown():
    assert tuple(EXHIBITS) == WHAT
    assert set(PAPER) < set(WHAT)
    assert set(SHOWS) == {*WHAT, "claims", "field"}


def test_a_cell_is_wanted_once_with_all_that_is_needed_of_it():
    asked = wanted(Reproduce(what=("table1", "figure3"), canvases=(32, 64), counts=(10, 20)))
    keys = [(one.canvas, one.decoder, one.problems) for one in asked]
    assert len(keys) == len(set(keys))
    assert {one.needs for one in asked if one.decoder == decoders.PAPER} == {("refinements",)}
    assert [one.canvas for one in asked] == sorted(one.canvas for one in asked)


def test_only_names_decoders_by_patterns():
    asked = wanted(Reproduce(what=("table1",), only=("lrd*", "threshold 0.9")))
    assert {"threshold 0.9", "lrd (shipped)"} <= {one.decoder for one in asked}
    assert not [one for one in asked if "plain" in one.decoder]
    with pytest.raises(ValueError, match="only=best names no decoder of table1"):
        wanted(Reproduce(what=("table1",), only=("best",)))


def test_everything_is_drawn_from_the_folder_alone(options, cells_file):
    write(cells_file, every_cell(options))
    report = reproduce(options).read_text()
    for name in WHAT:
        assert f"## {name}: " in report
        assert (options.output / f"{name}-m-64.png").is_file() == name.startswith(("figure", "front"))
    results = json.loads((options.output / "results.json").read_text())
    assert set(results) == set(SHOWS)
    cells_file.unlink()
    again = Reproduce(**{**vars(options), "cells": ()})
    assert reproduce(again).read_text() == report


def test_cells_of_other_runs_are_not_missing(options, cells_file):
    asked = wanted(options)
    assert len(missing(options)) == len(asked)
    write(cells_file, every_cell(options))
    assert missing(options) == []
    old = [{k: v for k, v in c.items() if k not in ("steps", "refinements")} for c in every_cell(options)]
    write(cells_file, old)
    assert {one.decoder for _, one in missing(options)} == {one.decoder for one in asked if one.needs}


def test_a_table_compares_with_the_baseline_and_with_the_first_of_its_group():
    cells = [cell("plain, 1 a step", forwards=64.0), cell(decoders.PAPER, 0.7, forwards=4.0)]
    times = {("m", 64, None): {"plain, 1 a step": 1.0, decoders.PAPER: 2.0}}
    (setting,) = settings([*cells, cell("paper, no mixing", 0.8, forwards=3.0)], times, ("m",), ("words", "code"))
    row = table1(setting).data["the paper's comparison"][1]
    assert (row["fewer"], row["faster"], row["milliseconds"]) == (16.0, 8.0, 8.0)
    rows = table3(setting).data["the paper's LRD, less one part"]
    assert [r["decoder"] for r in rows] == [decoders.PAPER, "paper, no mixing"]
    assert rows[1]["more"][0] == pytest.approx(0.1)
    assert "| paper, no mixing | 80.0 (77.4-82.4) | +10.0 (" in table3(setting).markdown


def test_the_cell_of_most_problems_speaks_and_the_newer_of_equals():
    cells = [cell("d", 0.1, 400), cell("d", 0.3, 1000), cell("d", 0.2, 1000), cell("d", 0.5, 200, steps=1)]
    (setting,) = settings(cells, {}, ("m",), ("words", "code"))
    assert setting.pick("d")["accuracy"] == 0.2
    assert setting.pick("d", "steps")["accuracy"] == 0.5
    assert settings([cell("d", tasks=["words"])], {}, ("m",), ("words", "code")) == []


def test_problems_of_another_seed_are_not_in_the_same_table():
    cells = [cell("d", 0.5), cell("d", 0.7, seed=2)]
    for seed, accuracy in ((1, 0.5), (2, 0.7)):
        (setting,) = settings(cells, {}, ("m",), ("words", "code"), seed=seed)
        assert [got["accuracy"] for got in setting.present(["d"])] == [accuracy]
    assert settings(cells, {}, ("m",), ("words", "code"), seed=3) == []


def test_the_interval_of_a_difference_is_the_published_one():
    """Newcombe (1998), interval estimation for the difference, table II: 56 of 70 less 48 of 80, method 10."""
    a, b = cell("a", 56 / 70, 70), cell("b", 48 / 80, 80)
    assert difference(a, b) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_on_the_same_problems_the_interval_is_that_of_pairs():
    """Newcombe (1998), paired data, table III: 36 both, 12 and 2 one of them, 0 none; method 10."""
    a = cell("a", 48 / 50, 50, right="1" * 48 + "0" * 2)
    b = cell("b", 38 / 50, 50, right="1" * 36 + "0" * 12 + "1" * 2)
    assert difference(a, b) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_claims_are_judged_by_intervals():
    def verdict(accuracy):
        cells = [cell("plain, 1 a step", 0.5), cell(decoders.PAPER, accuracy)]
        (setting,) = settings(cells, {}, ("m",), ("words", "code"))
        return SHOWS["claims"](setting).data[0]["verdict"]

    assert [verdict(a) for a in (0.7, 0.51, 0.3)] == ["holds", "not decided", "does not hold"]


def test_a_gain_too_small_for_the_papers_does_not_hold():
    """The same problems, answered alike: a gain of 1.2 points is ruled out."""
    cells = [cell(name, 0.5, 1000, right="10" * 500) for name in ("plain, 1 a step", decoders.PAPER)]
    (setting,) = settings(cells, {}, ("m",), ("words", "code"))
    assert SHOWS["claims"](setting).data[0]["verdict"] == "does not hold"


def test_a_claim_of_no_loss_asks_for_the_forwards_too():
    def verdict(accuracy, forwards):
        cells = [cell("plain, 1 a step", 0.8, 1000, forwards=64.0)]
        cells += [cell("entropy bound 0.1", accuracy, 1000, forwards=forwards)]
        (setting,) = settings(cells, {}, ("m",), ("words", "code"))
        (finding,) = SHOWS["field"](setting).data
        return finding["verdict"]

    assert verdict(0.85, 20.0) == "holds"
    assert verdict(0.85, 40.0) == "does not hold"
    assert verdict(0.79, 20.0) == "not decided"
    assert verdict(0.7, 20.0) == "does not hold"


def test_every_claim_of_the_field_is_of_decoders_that_can_be_measured():
    (setting,) = settings([cell(name) for name in KNOWN], {}, ("m",), ("words", "code"))
    asked = []

    class Asked(Setting):
        def pick(self, decoder, field="accuracy"):
            asked.append(decoder)
            return super().pick(decoder, field)

    assert all(list(test(Asked(**vars(setting)))) for test in FIELD.values())
    assert len(set(asked)) > 15 and set(asked) <= set(KNOWN)


def test_a_stop_far_from_the_final_output_is_no_convergence():
    course = {"stopped": [0.0, 0.6, 1.0], "distance": [1.0, 0.8, 0.05]}
    (setting,) = settings([cell("LRD, no stop", steps=course)], {}, ("m",), ("words", "code"))
    (finding,) = SHOWS["claims"](setting).data
    assert finding["found"] == "at forward 2, 80% of the first forward's"
    assert finding["verdict"] == "does not hold"


def test_a_refinement_that_was_cut_has_not_settled():
    assert settled_by({"2": 6, "4": 2, "20": 2}, 20) == [0.0, 0.6, 0.6, 0.8]


def test_the_front_holds_what_nothing_beats():
    assert front([(2, 0.5), (1, 0.4), (3, 0.45), (1, 0.3), (4, 0.6)]) == [1, 0, 4]


def test_what_is_missing_is_measured_and_timed_once(tmp_path):
    options = Reproduce(
        canvases=(32,), counts=(4,), replayed=2, batch=4, what=("table1",), only=("threshold 0.9",), output=tmp_path
    )
    reproduce(options)
    (measured,) = cells_in(tmp_path / "cells.jsonl").read().held.values()
    assert 0 < measured["effective_tokens"] < 32
    assert measured["tasks"] == ["words", "code"]
    assert times_of(tmp_path / "times.jsonl")["lrd-tiny-soft", 32, None]["threshold 0.9"] > 0
    before = [(tmp_path / name).read_text() for name in ("cells.jsonl", "times.jsonl")]
    reproduce(options)
    assert [(tmp_path / name).read_text() for name in ("cells.jsonl", "times.jsonl")] == before


def test_a_decoder_of_yours_is_measured_and_shown_beside_the_others(tmp_path):
    asked = ["--canvases", "32", "--counts", "4", "--what", "table1,front", "--only", "threshold 0.9"]
    asked += ["--output", str(tmp_path), "--cache", "dual", "--commit.threshold", "0.8", "--temperature", "0.5"]
    assert main(["reproduce", *asked, "--dtype", "bfloat16"]) == 0
    cells = list(cells_in(tmp_path / "cells.jsonl").read().held.values())
    name = "yours: lrd, cache dual, commit.threshold 0.8, temperature 0.5"
    assert [(c["decoder"], c["dtype"]) for c in cells] == [(name, "bfloat16"), ("threshold 0.9", "bfloat16")]
    assert cells[0]["config"]["cache"]["kind"] == "dual"
    assert set(times_of(tmp_path / "times.jsonl")["lrd-tiny-soft", 32, "bfloat16"]) == {name, "threshold 0.9"}
    report = (tmp_path / "report.md").read_text()
    assert f"| *yours* |  |  |  |  |  |  |\n| {name} |" in report
    assert f"| yours | **{name}** |" in report or f"| yours | {name} |" in report


def test_what_a_name_meant_once_is_not_shown():
    now, once = (to_table(KNOWN[name](64)) for name in ("threshold 0.9", "threshold 0.5"))
    cells = [cell("threshold 0.9", 0.8, 400, config=now), cell("threshold 0.9", 0.9, 1000, config=once)]
    (setting,) = settings(cells, {}, ("m",), ("words", "code"))
    assert setting.pick("threshold 0.9")["accuracy"] == 0.8


def test_tasks_come_alone_or_together():
    tokenizer = lambda text: {"input_ids": text.split()}  # noqa: E731
    groups = [q.group.split("/")[0] for q in source_of(("words", "code"))(8, 1, 64, tokenizer)]
    assert groups == ["words"] * 6 + ["code"] * 2
    (question,) = source_of(("code",))(1, 1, 64, tokenizer)
    assert question.group.startswith("code/") and not question.check("nothing")
    with pytest.raises(ValueError, match="tasks=gsm8k: name one or more of words, code"):
        source_of(("gsm8k",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"what": ("table9",)}, "what=table9 is unknown; choose of table1, table2"),
        ({"counts": (1, 2)}, "one number for each of canvases"),
        ({"replayed": 0}, "replayed=0 must be at least 1"),
        ({"plan": True, "redraw": True}, "give one of them"),
        ({"cells": (Path("absent.jsonl"),)}, "cells=absent.jsonl: no such file"),
    ],
)
def test_bad_options_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        Reproduce(**changes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "words,sums"], "name one or more of words, code"),
        (["--redraw", "--what", "table1,front"], "holds no cell of lrd-tiny-soft on words, code of seed 1"),
        (["--model", "lrd-tiny", "absent"], "there is no model 'absent'"),
        (["--tasks", "gsm8k,gsm8k"], "tasks=gsm8k, gsm8k: name each once"),
        (["--tasks", "gsm8k,words"], "tasks=words: give them apart from humaneval, mbpp, gsm8k, math500"),
    ],
)
def test_what_cannot_be_run_is_one_message_and_nothing_is_left(tmp_path, capsys, options, words):
    assert main(["reproduce", "--output", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_plan_names_what_is_missing(tmp_path, capsys):
    assert main(["reproduce", "--output", str(tmp_path), "--what", "figure3", "--plan"]) == 0
    assert "lrd-tiny-soft, canvas 64, paper, refined until D < 0.001: 1000 problems" in capsys.readouterr().out


def test_a_setting_without_cells_shows_nothing():
    assert [name for name, show in SHOWS.items() if show(Setting("m", 64, {}, {})) is not None] == []
