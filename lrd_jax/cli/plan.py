"""`lrd-jax plan`: what a decode or a training step takes on devices that are not there."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator

from rich.console import Console

from lrd_jax.cli import INCOMPLETE
from lrd_jax.errors import Refused
from lrd_jax.plan.options import Plan

_PAPER_WIDTH = 150  # of tables that go to a file
_TRAINING_RESTS_ON = (
    "Memory is the compiler's plan. Times are estimates, not measurements: the compiler's cycles at the chip's clock, "
    "and collectives one after the other at the full speed of two links of a chip. Tokens count padding."
)


def run(options: Plan) -> int:
    """Tables or JSON on standard output; the status says where no mesh fits."""
    with _progress() as tell:
        tell("starting")
        import jax  # takes seconds: the user waits in here

        jax.config.update("jax_platforms", "cpu")  # a plan takes no device of this machine
        if options.train is not None:
            return _run_training(options, tell)
        from lrd_jax.plan import report
        from lrd_jax.plan.chips import GPUS, parse_gpus, parse_slice
        from lrd_jax.plan.planner import count, mesh_named, meshes, plan

        model, job_of, tokens = _asked(options)
        if options.gpu is not None:
            kind, devices = parse_gpus(options.gpu)
            together = devices
        else:
            assert options.topology is not None, "options have one of them"
            where = parse_slice(options.topology, options.slices)
            devices, together = where.count, where.size
        job_of(options.batch or 1)  # refuses what no mesh can mend
        sizes = meshes(model, devices, together) if options.mesh is None else [mesh_named(options.mesh, devices)]
        sizes = _dividing(sizes, options.batch)
        if options.gpu is not None:
            rows = [report.Row(count(job_of, mesh, options.batch), {}, None) for mesh in sizes]
            fits = [row for row in rows if sum(row.plan.counted.values()) < GPUS[kind]]
        else:
            rows = [report.row_of(found, where, tokens) for found in plan(job_of, where, sizes, options.batch, tell)]
            fits = [row for row in rows if row.plan.compiled is not None]
    if options.json:
        print(json.dumps(report.as_json(options, rows, tokens)), flush=True)
        return 0 if fits else INCOMPLETE
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PAPER_WIDTH
    if options.gpu is not None:
        console.print(report.counted_table(rows, options.gpu))
    else:
        console.print(report.compiled_table(rows, where))
        if len(fits) == len(rows) == 1:
            console.print(report.details(fits[0]))
    for line in report.assumptions(options, rows, tokens):
        console.print(line, style="dim")
    if fits:
        best = max(fits, key=lambda row: row.tokens_per_second or 0.0)
        print("on every host:" if devices > 1 else "to type:")
        print(f"  {report.command(options, best)}", flush=True)
    return 0 if fits else INCOMPLETE


def _run_training(options: Plan, tell: Callable[[str], None]) -> int:
    """The step of a recipe, on one mesh."""
    from lrd_jax.convert.reader import weight_dtype
    from lrd_jax.plan import training
    from lrd_jax.plan.chips import parse_slice
    from lrd_jax.plan.planner import mesh_named, plan
    from lrd_jax.plan.shapes import model_config
    from lrd_jax.train import read_config

    assert options.train is not None and options.topology is not None, "options have both"
    config, model = read_config(options.train), model_config(options.model)
    bucket, dtype = training.largest_bucket(config), weight_dtype(options.dtype).name
    where = parse_slice(options.topology, options.slices)
    recipe = ",".join(f"{axis}={size}" for axis, size in dataclasses.asdict(config.mesh).items())
    mesh = mesh_named(options.mesh or recipe, where.count)

    def job_of(batch: int) -> training.TrainJob:
        return training.TrainJob(model=model, config=config, batch=batch, dtype=dtype)

    plans = list(plan(job_of, where, [mesh], options.batch or bucket.batch, tell))
    if options.json:
        print(json.dumps({"model": options.model, "meshes": training.as_json(plans, where, bucket)}), flush=True)
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _PAPER_WIDTH
        console.print(training.table(plans, where, bucket))
        console.print(_TRAINING_RESTS_ON, style="dim")
    return 0 if plans[0].compiled is not None else INCOMPLETE


def _asked(options: Plan):
    """The model, the job of a batch, and the tokens that a row commits on a forward."""
    from lrd_jax.convert.reader import weight_dtype
    from lrd_jax.plan.decode import DecodeJob
    from lrd_jax.plan.shapes import model_config
    from lrd_jax.presets import decoder

    config, model, dtype = decoder(options), model_config(options.model), weight_dtype(options.dtype).name
    if options.quantize is not None:
        model = dataclasses.replace(model, quantized=options.quantize)

    def job_of(batch: int) -> DecodeJob:
        return DecodeJob(model=model, config=config, batch=batch, prompt_length=options.prompt_length, dtype=dtype)

    least = config.gen_length / config.commit.max_commits(config.gen_length, config.window)
    return model, job_of, options.tokens_per_forward or least


def _dividing(sizes: list[dict[str, int]], batch: int | None) -> list[dict[str, int]]:
    """The meshes that divide the batch."""
    from lrd_jax.plan.planner import parts_of

    found = [mesh for mesh in sizes if batch is None or batch % parts_of(mesh) == 0]
    if not found:
        parts = ", ".join(str(parts_of(mesh)) for mesh in sizes)
        raise Refused(f"batch={batch} does not split into the parts of any mesh ({parts}); give a multiple of them")
    return found


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yields what shows on standard error what is being done: in one place on a terminal, else a line each."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda doing: print(doing, file=sys.stderr, flush=True) if doing != "starting" else None
        return
    with console.status("starting") as status:
        yield status.update
