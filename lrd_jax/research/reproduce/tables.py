"""Tables 1 to 4 as rows of numbers and as Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from lrd_jax.research.decoders import CACHES, SCAN, TABLE
from lrd_jax.research.markdown import percent, table, tally
from lrd_jax.research.reproduce.decoders import (
    ABLATION_GROUPS,
    BASELINE,
    BESIDE,
    EFFECTIVE,
    PAPER,
    REFINED_GROUPS,
)
from lrd_jax.research.reproduce.folder import Setting, Shown
from lrd_jax.research.statistics import difference

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]

_BESIDE = "beside it: an end-of-text stop, parallel commits, caches"
YOURS = "yours"

ACCURACY: Column = ("accuracy % (95 %)", lambda row: accuracy(row))
PROBLEMS: Column = ("problems", lambda row: str(row["problems"]))
FORWARDS: Column = ("forwards", lambda row: f"{row['forwards']:.1f}")
REFINING: Column = ("of them refining", lambda row: f"{row['refine_forwards']:.1f}")
FEWER: Column = ("fewer", lambda row: times(row["fewer"]))
FASTER: Column = ("faster", lambda row: times(row["faster"]))
TIME: Column = ("ms a problem", lambda row: number(row["milliseconds"], ".1f"))
AGAINST: Column = ("points more than the first (95 %)", lambda row: points(row["more"]))
EFFECTIVE_TOKENS: Column = ("effective tokens", lambda row: number(row["effective_tokens"], ".1f"))
OF_CANVAS: Column = ("of the canvas", lambda row: number(row["of_canvas"], ".0%"))
EACH: Column = ("forwards an effective token", lambda row: number(row["forwards_a_token"], ".2f"))
BATCHED: Column = ("ms a problem, in batches", lambda row: f"{row['batched']:.1f}")
ENDS: Column = ("ends", lambda row: tally(row["stop_reasons"]))
RATE: Column = ("effective tokens/s", lambda row: number(row["tokens_a_second"], ".0f"))


def table1(setting: Setting) -> Shown | None:
    """Baseline against LRD, the baseline's own faster budgets, and what belongs beside them."""
    groups = {
        "the paper's comparison": (BASELINE, PAPER),
        "LRD otherwise, and larger budgets": tuple(name for name in TABLE if name not in (BASELINE, PAPER, *BESIDE)),
        _BESIDE: tuple(BESIDE),
    }
    return _table(setting, groups, (ACCURACY, PROBLEMS, FORWARDS, FEWER, TIME, FASTER))


def table2(setting: Setting) -> Shown | None:
    """Refinement once, before every commit, until settled; in three decoders that are otherwise the same."""
    names = ("the paper's stop, 1 a step", "8 a step, no stop", "threshold 0.9 commits, no stop")
    groups = dict(zip(names, REFINED_GROUPS, strict=True))
    return _table(setting, groups | {_BESIDE: tuple(BESIDE)}, (ACCURACY, AGAINST, PROBLEMS, FORWARDS, REFINING))


def table3(setting: Setting) -> Shown | None:
    """One part left out at a time."""
    names = (
        "the paper's LRD, less one part",
        "8 a step without a stop, less one part",
        "lrd as shipped, less one part",
    )
    groups = dict(zip(names, map(tuple, ABLATION_GROUPS), strict=True))
    return _table(setting, groups | {_BESIDE: tuple(BESIDE)}, (ACCURACY, AGAINST, PROBLEMS, FORWARDS, REFINING))


def table4(setting: Setting) -> Shown | None:
    """How much of a canvas is text, and the speed with and without stops."""
    groups = {"the paper's comparison": tuple(EFFECTIVE), _BESIDE: tuple(BESIDE)}
    columns = (EFFECTIVE_TOKENS, OF_CANVAS, FORWARDS, EACH, FEWER, FASTER, RATE, ACCURACY)
    return _table(setting, groups, columns)


def scan(setting: Setting) -> Shown | None:
    """Every decoder of the scan, with how its decodes end."""
    return _table(
        setting, {"LRD with one thing varied": tuple(SCAN)}, (ACCURACY, PROBLEMS, FORWARDS, REFINING, BATCHED, ENDS)
    )


def caches(setting: Setting) -> Shown | None:
    """Blocks with and without caches."""
    return _table(setting, {"blocks": tuple(CACHES)}, (ACCURACY, PROBLEMS, FORWARDS, REFINING, BATCHED, ENDS))


def _table(setting: Setting, groups: dict[str, tuple[str, ...]], columns: Sequence[Column]) -> Shown | None:
    """The rows of each group, and one Markdown table of all; a decoder without a cell is left out."""
    groups = groups | {YOURS: setting.yours}
    found = {title: rows for title, names in groups.items() if names and (rows := _rows(setting, names))}
    if not found:
        return None
    lines = []
    for title, rows in found.items():
        lines.append([f"*{title}*", *("" for _ in columns)])
        lines += [[row["decoder"], *(show(row) for _, show in columns)] for row in rows]
    return Shown(found, table(["decoder", *(head for head, _ in columns)], lines))


def _rows(setting: Setting, names: tuple[str, ...]) -> list[Row]:
    """A group's rows, compared with its first; what stands beside is no group in that sense."""
    first = None if names in (tuple(BESIDE), setting.yours) else setting.pick(names[0])
    return [_row(cell, setting, first) for cell in setting.present(names)]


def _row(cell: dict, setting: Setting, first: dict | None) -> Row:
    """A cell's numbers beside the baseline's and those of the group's first."""
    base, told = setting.pick(BASELINE), setting.pick(cell["decoder"], "effective_tokens")
    effective = None if told is None else told["effective_tokens"]
    spent = setting.milliseconds(cell)
    row = {field: cell[field] for field in ("decoder", "problems", "accuracy", "low", "high", "forwards")}
    return row | {
        "refine_forwards": cell["refine_forwards"],
        "batched": 1000 * cell["seconds"] / cell["problems"],
        "stop_reasons": cell.get("stop_reasons", {}),
        "milliseconds": spent,
        "fewer": setting.fewer(cell, base),
        "faster": setting.faster(cell, base),
        "more": None if first is None or first is cell else difference(cell, first),
        "effective_tokens": effective,
        "of_canvas": None if effective is None else effective / setting.canvas,
        "forwards_a_token": None if not effective else cell["forwards"] / effective,
        "tokens_a_second": None if effective is None or spent is None else 1000 * effective / spent,
    }


def accuracy(cell: dict) -> str:
    """A cell's accuracy with its interval."""
    return percent(cell["accuracy"], cell["low"], cell["high"])


def points(more: tuple[float, float, float] | None) -> str:
    """A difference of accuracies with its interval, in points."""
    return "" if more is None else f"{100 * more[0]:+.1f} ({100 * more[1]:+.1f} to {100 * more[2]:+.1f})"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}x"


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
