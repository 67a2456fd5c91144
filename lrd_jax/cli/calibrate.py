"""`lrd-jax calibrate`: settings for a model and its prompts, in a preset file."""

import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lrd_jax.cli import INCOMPLETE
from lrd_jax.research.calibrate.options import Calibrate

if TYPE_CHECKING:
    from lrd_jax.research.calibrate.calibration import Report

_FILE_WIDTH = 160  # of tables that go to a file: no cell is broken there


def run(options: Calibrate) -> int:
    """The front or the certificate on standard output, where the files are on standard error."""
    with Console(stderr=True).status("starting") as status:
        from lrd_jax.cli.compile_cache import use_compile_cache
        from lrd_jax.research.calibrate.calibration import (
            calibrate,  # JAX takes seconds to import: the user waits in here
        )

        use_compile_cache()
        report = calibrate(options, say=status.update)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(_table(report))
    for words in _told(options, report):
        print(words, file=sys.stderr)
    return 0 if report.preset else INCOMPLETE


def _table(report: "Report") -> Table:
    table = Table(box=box.MARKDOWN)
    for name in ("", "r_f", "tau refine", "tau decode", "guard", "D_t", "forwards", "agreement %"):
        table.add_column(name, justify="left" if name in ("", "D_t") else "right")
    if report.reference.accuracy is not None:
        table.add_column("right %", justify="right")
    if report.rungs:
        table.add_column("changed", justify="right")
        table.add_column("bound %", justify="right")
        table.add_column("certified")
    points = [(report.reference, None), *zip(report.points, report.rungs or [None] * len(report.points), strict=True)]
    for point, rung in points:
        t = point.tuning
        mark = "unstopped" if point is report.reference else "chosen" if point is report.chosen else ""
        numbers = (t.r_f, t.tau_refine, t.tau_decode, t.max_entropy)
        row = [mark, *("" if number is None else f"{number:g}" for number in numbers)]
        row += [f"{t.reduce} over {t.scope}", f"{point.forwards:.2f}", f"{100 * point.agreement:.1f}"]
        row += [] if point.accuracy is None else [f"{100 * point.accuracy:.1f}"]
        row += [] if rung is None else [str(rung.changed), f"{100 * rung.bound:.2f}", "yes" if rung.certified else "no"]
        table.add_row(*row)
    return table


def _told(options: Calibrate, report: "Report") -> list[str]:
    """Lines for people."""
    lines = [f"{report.settings} settings from {report.rows_decoded} decodes of {report.prompts} prompts"]
    if report.chosen is None:
        from lrd_jax.research.calibrate.certify import prompts_needed

        fewest = report.rungs[0].changed
        needed = prompts_needed(options.risk, options.confidence, fewest)
        return [
            *lines,
            f"picture: {options.picture_path}",
            f"nothing is certified: the strictest stop changed {fewest} of {report.prompts} answers, and so many pass "
            f"at risk {options.risk:g} and confidence {options.confidence:g} from {needed} prompts on; no preset file "
            "was written",
        ]
    if report.rungs:
        rung = report.rungs[report.points.index(report.chosen)]
        lines.append(
            f"certified: the stop changed {rung.changed} of {report.prompts} answers; with confidence "
            f"{options.confidence:g} it changes at most {100 * rung.bound:.2f} %"
        )
    if report.differ:
        lines.append(f"{report.differ} prompts were decoded otherwise than read off: rounding tipped a close choice")
    return [*lines, f"preset file: {options.output}", f"picture: {options.picture_path}"]
