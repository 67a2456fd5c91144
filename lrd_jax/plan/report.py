"""A plan as tables, as JSON, and as the command line to type."""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, cast

from rich.table import Table

from lrd_jax.checkpoint import embedded_models
from lrd_jax.plan.chips import BETWEEN_SLICES, GPUS, Slice, parse_gpus
from lrd_jax.plan.decode import DecodeJob
from lrd_jax.plan.estimate import StepTime, mean_seconds, step_time
from lrd_jax.plan.hlo import Cost
from lrd_jax.plan.options import Plan
from lrd_jax.plan.planner import MeshPlan, mesh_text
from lrd_jax.plan.shapes import SHAPES

_PARTS = ("parameters", "cache", "state")


@dataclasses.dataclass(frozen=True)
class Row:
    """A mesh's plan with what follows from it.

    Attributes:
      times: of a step, by kind.
      tokens_per_second: of the whole batch; None where nothing was compiled.
    """

    plan: MeshPlan
    times: Mapping[str, StepTime]
    tokens_per_second: float | None

    @property
    def temporaries(self) -> int:
        """Bytes a chip of all that is not counted, the program included."""
        assert self.plan.compiled is not None, "nothing was compiled"
        return max(0, self.plan.compiled.total - sum(self.plan.counted.values()))


def row_of(plan: MeshPlan, where: Slice, tokens: float) -> Row:
    """The row of a mesh that was compiled for a slice.

    Args:
      tokens: that a row commits on a forward.
    """
    if plan.compiled is None:
        return Row(plan, {}, None)
    times = {kind: step_time(cost, where.chip) for kind, cost in plan.compiled.steps.items()}
    seconds = mean_seconds(times, cast(DecodeJob, plan.job).refreshes(tokens))
    return Row(plan, times, plan.batch * tokens / seconds if seconds else None)


def compiled_table(rows: Iterable[Row], where: Slice) -> Table:
    """A row for each mesh: bytes, times, traffic, tokens."""
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = (
        f"{where.name}{_times(where.slices)}: GiB a chip of {_gib(where.chip.hbm_bytes)}, estimated ms a forward"
    )
    for name in ("mesh", "batch", *_PARTS, "temporaries", "sum", "compute", "collectives", "tokens/s", "most goes to"):
        table.add_column(name, justify="left" if name in ("mesh", "most goes to") else "right")
    for row in rows:
        plan = row.plan
        head = (mesh_text(plan.mesh), str(plan.batch), *(_gib(plan.counted[part]) for part in _PARTS))
        if plan.compiled is None:
            table.add_row(*head, "", _gib(plan.needs or 0), "", "", "", "does not fit")
            continue
        for kind, time in row.times.items():
            first = kind == next(iter(row.times))
            name, share = time.dearest
            table.add_row(
                *(head if first else ("", "", "", "", "")),
                *((_gib(row.temporaries), _gib(plan.compiled.total)) if first else ("", "")),
                _ms(sum(time.compute.values())),
                _ms(time.collectives),
                f"{row.tokens_per_second:.0f}" if first and row.tokens_per_second is not None else "",
                f"{name} {share:.0%}" + (f" of a {kind}" if len(row.times) > 1 else ""),
            )
    return table


def details(row: Row) -> Table:
    """Where the time of one mesh goes, and what its chips send each other."""
    table = Table(box=None, pad_edge=False, show_header=False)
    assert row.plan.compiled is not None, "nothing was compiled"
    for kind, time in row.times.items():
        cost = row.plan.compiled.steps[kind]
        parts = ", ".join(f"{name} {_ms(seconds)}" for name, seconds in time.compute.items())
        table.add_row(f"ms of a {kind}", f"{parts} ({cost.cycles.total()} cycles)")
        table.add_row(f"collectives of a {kind}", _traffic(cost) or "none")
    return table


def counted_table(rows: Iterable[Row], gpus: str) -> Table:
    """A row for each mesh of GPUs: what is held, and what is left."""
    kind, number = parse_gpus(gpus)
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = f"{number} x {kind}: GiB a GPU of {_gib(GPUS[kind])}, counted"
    for name in ("mesh", "batch", *_PARTS, "sum", "left"):
        table.add_column(name, justify="left" if name == "mesh" else "right")
    for plan in (row.plan for row in rows):
        held = sum(plan.counted.values())
        left = _gib(GPUS[kind] - held) if held < GPUS[kind] else "does not fit"
        parts = (_gib(plan.counted[part]) for part in _PARTS)
        table.add_row(mesh_text(plan.mesh), str(plan.batch), *parts, _gib(held), left)
    return table


def assumptions(options: Plan, rows: Iterable[Row], tokens: float) -> list[str]:
    """What the figures rest on, a line each."""
    if options.gpu is not None:
        return [
            "Counted from shapes, not compiled: temporaries are not in it (activations, logits, collectives), nor is "
            "what the driver and JAX keep for themselves. Leave several GiB.",
        ]
    lines = [
        "Memory is the compiler's plan. Times are estimates, not measurements: the compiler's cycles at the chip's",
        "clock, and collectives one after the other at the full speed of two links of a chip.",
        f"Tokens a second: {tokens:.3g} a row on each forward"
        + (", the least this decoder commits" if options.tokens_per_forward is None else "")
        + "; forwards of refinement come on top.",
    ]
    cached = [
        job.refreshes(tokens) for row in rows if "refresh" in row.times and isinstance(job := row.plan.job, DecodeJob)
    ]
    if cached:
        lines.append(f"Of the forwards {cached[0]:.0%} refresh the cache; the others recompute a region, the largest.")
    if options.batch is None:
        lines.append(
            "The batch is the largest of those tried that fits: 1 to 8 rows a part, then steps of up to a quarter."
        )
    return lines


def command(options: Plan, row: Row) -> str:
    """The command that decodes as planned."""
    named = options.model not in SHAPES or options.model in embedded_models()
    words = ["lrd-jax", "generate", "--model", options.model if named else "CHECKPOINT"]
    words += ["--mesh", mesh_text(row.plan.mesh), "--dtype", options.dtype, "--preset", options.preset]
    words += ["--gen-length", str(options.gen_length)]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in options.changes.items()]
    words += ["--batch", str(row.plan.batch), "--input", "PROMPTS.jsonl"]
    return shlex.join(words)


def as_json(options: Plan, rows: list[Row], tokens: float) -> dict[str, Any]:
    """The whole plan, JSON-ready; bytes are of one device."""
    return {
        "model": options.model,
        "devices": {"topology": options.topology, "slices": options.slices, "gpu": options.gpu},
        "preset": options.preset,
        "gen_length": options.gen_length,
        "changes": dict(options.changes),
        "prompt_length": options.prompt_length,
        "dtype": options.dtype,
        "quantize": options.quantize,
        "tokens_per_forward": tokens,
        "meshes": [_row_json(options, row) for row in rows],
    }


def _row_json(options: Plan, row: Row) -> dict[str, Any]:
    plan, compiled = row.plan, row.plan.compiled
    found: dict[str, Any] = {"mesh": dict(plan.mesh), "batch": plan.batch, "bytes": dict(plan.counted)}
    if compiled is None:
        return found | {"compiled": False, "needs_bytes": plan.needs}
    found["bytes"] |= {"temporaries": row.temporaries, "total": compiled.total}
    return found | {
        "compiled": True,
        "compile_seconds": compiled.seconds,
        "steps": {kind: _step_json(cost, row.times[kind]) for kind, cost in compiled.steps.items()},
        "tokens_per_second": row.tokens_per_second,
        "command": command(options, row),
    }


def _step_json(cost: Cost, time: StepTime) -> dict[str, Any]:
    moved = [
        {
            "kind": traffic.kind,
            "group": traffic.group,
            "count": cost.counts[traffic],
            "bytes": nbytes,
            "largest_bytes": cost.largest[traffic],
        }
        for traffic, nbytes in cost.moved.most_common()
    ]
    return {
        "cycles": cost.cycles.total(),
        "compute_seconds": dict(time.compute),
        "collective_seconds": time.collectives,
        "collectives": moved,
    }


def _traffic(cost: Cost) -> str:
    return "; ".join(
        f"{cost.counts[traffic]} {_kind(traffic.kind)} of {traffic.group} chips, {nbytes / 2**20:.1f} MiB, "
        f"the largest {cost.largest[traffic] / 2**20:.3g}"
        for traffic, nbytes in cost.moved.most_common()
    )


def _kind(kind: str) -> str:
    return "sends between slices" if kind == BETWEEN_SLICES else kind


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.2f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"


def _times(slices: int) -> str:
    return f" x {slices}" if slices > 1 else ""
