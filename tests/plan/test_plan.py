"""The planner without a compiler: devices, models, meshes, what is counted, the search and the estimate."""

import collections
import dataclasses
import json
import math
import pickle

import goldens
import jax
import jax.numpy as jnp
import pytest

from lrd_jax.checkpoint import embedded_models
from lrd_jax.models import CHECKPOINTS, Model
from lrd_jax.plan.chips import CHIPS, GPUS, Slice, parse_gpus, parse_slice
from lrd_jax.plan.compiling import Compiled, TooLarge
from lrd_jax.plan.decode import DecodeJob
from lrd_jax.plan.estimate import mean_seconds, step_time
from lrd_jax.plan.hlo import Cost, Traffic
from lrd_jax.plan.options import Plan
from lrd_jax.plan.planner import abstract_mesh, count, mesh_named, meshes, parts_of, plan
from lrd_jax.plan.report import command, row_of
from lrd_jax.plan.search import ROWS, largest
from lrd_jax.plan.shapes import SHAPES, model_config
from lrd_jax.presets import preset

pytestmark = pytest.mark.slow

LLADA, DREAM = SHAPES["llada-8b"], SHAPES["dream-7b"]
GIB = 2**30


def job_of(batch, model=LLADA, gen_length=512, name="lrd", **changes):
    config = preset(name, gen_length, **changes)
    return DecodeJob(model=model, config=config, batch=batch, prompt_length=512, dtype="bfloat16")


def compiled(total, steps=None):
    return Compiled(arguments=total, temporaries=0, output=0, program=0, steps=steps or {}, seconds=1.0)


def test_slices_are_read():
    assert parse_slice("v5e:2x4") == Slice("v5e:2x4")
    assert (parse_slice("v5p:2x2x4", 2).count, parse_slice("v5p:2x2x4", 2).size) == (32, 16)
    assert parse_slice("v6e:4x8").chip is CHIPS["v6e"]


@pytest.mark.parametrize(
    "text", ["", "v5e", "v5e-8", "v5e:", "v5e:0x4", "v5e:2x", "v4:2x2x1", "V5E:2x4", "v5e: 2x4", "v5e:2x4\n"]
)
def test_no_slices(text):
    with pytest.raises(ValueError, match="is no slice"):
        parse_slice(text)


@pytest.mark.parametrize(
    "text, wanted", [("v5e:2x2x2", "has 2 sizes, as in v5e:2x4"), ("v5p:8", "3 sizes, as in v5p:2x2x4")]
)
def test_slices_of_other_dimensions(text, wanted):
    with pytest.raises(ValueError, match=wanted):
        parse_slice(text)


def test_gpus_are_read():
    assert (parse_gpus("h100:8"), parse_gpus("l4")) == (("h100", 8), ("l4", 1))
    assert min(GPUS.values()) >= 24e9


def test_a_ring_passes_what_it_must():
    chip = CHIPS["v5e"]
    whole, links = 8 * 2**20, 2 * chip.link_bytes
    assert chip.collective_seconds("all-gather", whole, 8) == pytest.approx(7 / 8 * whole / links)
    assert chip.collective_seconds("reduce-scatter", whole / 8, 8) == pytest.approx(7 / 8 * whole / links)
    both = sum(
        chip.collective_seconds(kind, size, 8) for kind, size in (("reduce-scatter", whole / 8), ("all-gather", whole))
    )
    assert chip.collective_seconds("all-reduce", whole, 8) == pytest.approx(both)
    assert chip.collective_seconds("all-reduce", whole, 1) == 0
    assert chip.collective_seconds("send", whole, 2) > chip.collective_seconds("collective-permute", whole, 2)


@pytest.mark.parametrize("name", [*embedded_models(), *SHAPES])
def test_models_by_name(name):
    config = model_config(name)
    assert config.num_layers > 0
    assert name not in CHECKPOINTS or config == CHECKPOINTS[name].config


def test_a_config_is_enough(tmp_path):
    hf = json.loads((goldens.GOLDEN / "tiny-dream" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(hf))
    assert model_config(str(tmp_path)).family == "dream"


def test_a_converted_folder(tmp_path):
    from lrd_jax.convert import convert

    convert(goldens.GOLDEN / "tiny-llada", tmp_path / "orbax")
    assert model_config(str(tmp_path / "orbax")) == model_config(str(goldens.GOLDEN / "tiny-llada"))


def test_meshes_are_those_that_divide():
    assert [mesh["tensor"] for mesh in meshes(LLADA, 8, 8)] == [1, 2, 4, 8]
    assert [mesh["tensor"] for mesh in meshes(DREAM, 8, 8)] == [1, 2, 4, 8]  # 28 heads, padded to 32
    assert all(math.prod(mesh.values()) == 32 for mesh in meshes(LLADA, 32, 16))
    assert max(mesh["tensor"] for mesh in meshes(LLADA, 32, 16)) == 16  # within a slice


def test_a_mesh_that_is_named():
    assert mesh_named("data=2,tensor=4", 8) == {"data": 2, "fsdp": 1, "tensor": 4}
    for text in ("data=4", "tensor=16", "data=8,fsdp=2"):
        with pytest.raises(ValueError, match="devices; give sizes whose product is 8"):
            mesh_named(text, 8)


@pytest.mark.parametrize("sizes", [(1, 1, 8), (2, 1, 4), (2, 4, 1), (8, 1, 1)])
def test_parameters_are_those_of_the_model(sizes):
    mesh = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    held = count(job_of, mesh, None).counted["parameters"]
    whole = sum(math.prod(leaf.shape) * 2 for leaf in jax.tree.leaves(Model(LLADA).abstract_params(jnp.bfloat16)))
    split = sizes[1] * sizes[2]
    assert whole / split <= held < whole / split * 1.001  # norms are whole everywhere


def test_cache_and_state_follow_batch_and_heads():
    one = job_of(8, cache="dual", block_length=32).counted(abstract_mesh({"data": 1, "fsdp": 1, "tensor": 1}))
    assert one["cache"] == 2 * 32 * 8 * 1024 * 32 * 128 * 2  # keys and values, layers, rows, positions, heads, bfloat16
    split = job_of(8, cache="dual", block_length=32).counted(abstract_mesh({"data": 2, "fsdp": 1, "tensor": 4}))
    assert split["cache"] == one["cache"] // 8
    rows = job_of(8, cache="dual", block_length=32).counted(abstract_mesh({"data": 2, "fsdp": 1, "tensor": 1}))
    assert (rows["cache"], rows["state"]) == (one["cache"] // 2, one["state"] // 2)
    assert split["state"] < rows["state"]  # of so few positions the logits are kept, and split over the vocabulary
    grouped = job_of(8, model=DREAM, cache="dual", block_length=32)
    assert (
        grouped.counted(abstract_mesh({"data": 1, "fsdp": 1, "tensor": 4}))["cache"] == 2 * 28 * 8 * 1024 * 1 * 128 * 2
    )
    assert job_of(8).counted(abstract_mesh({"data": 1, "fsdp": 1, "tensor": 1}))["cache"] == 0


def test_a_vocabulary_that_does_not_divide_is_padded():
    job = DecodeJob(
        model=model_config("lrd-tiny"), config=preset("lrd", 16), batch=8, prompt_length=16, dtype="bfloat16"
    )
    whole, halves = (job.counted(abstract_mesh({"data": 1, "fsdp": 1, "tensor": n})) for n in (1, 2))
    assert whole["parameters"] / 2 < halves["parameters"] < whole["parameters"]


def test_jobs_are_refused_at_the_door():
    with pytest.raises(ValueError, match="batch=0"):
        job_of(0)
    with pytest.raises(ValueError, match="exceed the model's context"):
        DecodeJob(model=LLADA, config=preset("lrd", 512), batch=1, prompt_length=4000, dtype="bfloat16")
    with pytest.raises(ValueError, match="batch=6 must be a multiple of the 4 parts"):
        job_of(6).counted(abstract_mesh({"data": 4, "fsdp": 1, "tensor": 2}))


def test_jobs_travel():
    job = job_of(8, cache="dual", block_length=32)
    assert pickle.loads(pickle.dumps(job)) == job


def test_refreshes_by_blocks_and_by_counts():
    cached = job_of(8, cache="dual", block_length=32)
    assert cached.refreshes(1.0) == 1 / 32
    assert cached.refreshes(4.0) == 1 / 8
    assert job_of(8, cache="dual", block_length=32, **{"cache.refresh_every": 8}).refreshes(1.0) == 4 / 32
    assert job_of(8).refreshes(1.0) == 0.0


@pytest.mark.parametrize("held, row", [(2, 0.1), (2, 1.0), (14, 0.2), (14, 1.7), (0, 0.001), (1.87, 0.05), (1.8, 4.0)])
@pytest.mark.parametrize("bend", [0.0, 0.2, -0.1])
def test_the_largest_batch_is_found_from_few_compiles(held, row, bend):
    room, tried = 15.75 * GIB, []

    def compile_rows(rows):
        tried.append(rows)
        total = int(GIB * (held + row * rows * (1 + bend * (rows % 3 == 0))))
        return TooLarge(total) if total > room else compiled(total)

    rows, found = largest(compile_rows, held=int(held * GIB), room=int(room))
    assert found.total <= room
    following = ROWS[ROWS.index(rows) + 1 :][:1]
    assert not following or isinstance(compile_rows(following[0]), TooLarge)
    assert len(set(tried)) == len(tried[:-1]) <= 8 or not following


def test_one_row_that_does_not_fit():
    def compile_rows(rows):
        return TooLarge((14 + 2 * rows) * GIB)

    assert largest(compile_rows, held=14 * GIB, room=int(15.75 * GIB)) == TooLarge(16 * GIB)


@pytest.fixture
def compiler(monkeypatch):
    """A compiler of straight lines, and what it was asked."""
    asked = []

    def compile_job(where, mesh, job):
        asked.append((dict(mesh), job.batch))
        held = job.counted(abstract_mesh(mesh))
        total = sum(held.values()) + GIB // 2 * job.batch // parts_of(mesh)
        cost = Cost(
            cycles=collections.Counter({"forward": 3_000_000, "head": 1_500_000}),
            moved=collections.Counter({Traffic("all-reduce", 8): 100 * 10**6}),
        )
        return TooLarge(total) if total > where.chip.hbm_bytes else compiled(total, {"forward": cost})

    monkeypatch.setattr("lrd_jax.plan.planner.compile_job", compile_job)
    monkeypatch.setattr("lrd_jax.plan.planner.require_compiler", lambda: None)
    return asked


def test_every_mesh_is_gone_through(compiler):
    where, told = parse_slice("v5e:2x4"), []
    plans = list(plan(job_of, where, meshes(LLADA, 8, 8), None, told.append))
    assert [found.compiled is not None for found in plans] == [True, True, True, True]
    assert [found.batch // parts_of(found.mesh) for found in plans] == [1, 16, 20, 24]
    assert all(found.compiled.total <= where.chip.hbm_bytes for found in plans)
    assert all(found.counted == found.job.counted(abstract_mesh(found.mesh)) for found in plans)
    assert told[0] == "mesh 1 of 4, data=8: compiling a batch of 64"


def test_a_batch_that_is_named_is_compiled_once_a_mesh(compiler):
    plans = list(plan(job_of, parse_slice("v5e:2x4"), meshes(LLADA, 8, 8), 32))
    assert [batch for _, batch in compiler] == [32] * 4
    assert [found.compiled is None for found in plans] == [True, False, False, True]
    assert plans[0].needs > 15.75 * GIB


def test_what_cannot_fit_is_not_compiled(compiler):
    (found,) = plan(job_of, parse_slice("v5e:1x1"), [{"data": 1, "fsdp": 1, "tensor": 1}], 64)
    assert found.compiled is None and found.needs is not None
    (cached,) = plan(lambda b: job_of(b, cache="dual", block_length=32), parse_slice("v5e:1x1"), [found.mesh], 8)
    assert cached.needs == sum(cached.counted.values())
    assert len(compiler) == 1


def test_the_estimate_adds_cycles_and_collectives(compiler):
    where = parse_slice("v5e:2x4")
    (found,) = plan(job_of, where, [{"data": 1, "fsdp": 1, "tensor": 8}], 8)
    row = row_of(found, where, 2.0)
    time = row.times["forward"]
    assert time.compute == {"layers": pytest.approx(2e-3), "head": pytest.approx(1e-3)}
    assert time.collectives == pytest.approx(2 * 7 / 8 * 1e-3)
    assert row.tokens_per_second == pytest.approx(8 * 2.0 / (3e-3 + 1.75e-3))
    assert time.dearest == ("layers", pytest.approx(2 / 4.75))
    assert row.temporaries == pytest.approx(4 * GIB, abs=GIB / 100)


def test_a_cached_step_is_a_mean_of_two():
    chip = CHIPS["v6e"]
    steps = {
        kind: step_time(Cost(collections.Counter({"forward": n})), chip)
        for kind, n in (("refresh", 35), ("forward", 7))
    }
    assert mean_seconds(steps, 0.25) == pytest.approx((0.25 * 35 + 0.75 * 7) / chip.hertz)
    assert mean_seconds({"forward": steps["forward"]}, 0.0) == pytest.approx(7 / chip.hertz)


def test_the_command_says_what_was_planned(compiler):
    where = parse_slice("v5e:2x4")
    options = Plan(model="llada-8b", topology="v5e:2x4", gen_length=512, changes={"r_f": "0.2", "end_of_text": "true"})
    (found,) = plan(job_of, where, [{"data": 2, "fsdp": 1, "tensor": 4}], 8)
    assert command(options, row_of(found, where, 1.0)) == (
        "lrd-jax generate --model CHECKPOINT --mesh data=2,tensor=4 --dtype bfloat16 --preset lrd --gen-length 512 "
        "--r-f=0.2 --end-of-text=true --batch 8 --input PROMPTS.jsonl"
    )
    named = dataclasses.replace(options, model="a folder", changes={})
    assert "--model 'a folder' --mesh" in command(named, row_of(found, where, 1.0))
