"""Training steps planned: what a device holds, the command, and the TPU compiler where libtpu is installed."""

import collections
import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from lrd_jax.cli import INCOMPLETE, USER_ERROR, main
from lrd_jax.plan.chips import parse_slice
from lrd_jax.plan.compiling import Compiled, TooLarge
from lrd_jax.plan.hlo import Cost, Traffic
from lrd_jax.plan.planner import abstract_mesh
from lrd_jax.plan.shapes import SHAPES
from lrd_jax.plan.training import TrainJob
from lrd_jax.train import read_config
from lrd_jax.train.config import Lora
from lrd_jax.train.lora import num_adapted
from lrd_jax.train.memory import num_params

RECIPES = Path(__file__).parents[2] / "recipes"
LLADA = SHAPES["llada-8b"]
NEEDS_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the TPU compiler)")


def job(model=LLADA, recipe="llada-8b-lora-gsm8k", batch=32, **changes):
    config = dataclasses.replace(read_config(RECIPES / f"{recipe}.toml"), **changes)
    return TrainJob(model=model, config=config, batch=batch, dtype="bfloat16")


def test_both_recipes_are_of_their_models():
    for recipe, model in (("llada-8b-lora-gsm8k", LLADA), ("dream-7b-lora-code", SHAPES["dream-7b"])):
        found = job(model, recipe)
        assert found.config.lora == Lora(rank=16, alpha=32.0, merge=False)
        assert found.counted(abstract_mesh({"data": 1, "fsdp": 8, "tensor": 1}))["parameters"] > 0


def test_adapters_and_moments_are_counted_as_they_lie():
    one = job().counted(abstract_mesh({"data": 1, "fsdp": 1, "tensor": 1}))
    adapters = 4 * num_adapted(LLADA, job().config.lora)
    assert one == {"parameters": 2 * num_params(LLADA), "trained": adapters, "moments": 2 * adapters + 8}
    split = job().counted(abstract_mesh({"data": 1, "fsdp": 2, "tensor": 4}))
    assert split["parameters"] < one["parameters"] / 7.9
    assert adapters / 8 < split["trained"] < adapters / 2  # what the one axis cuts, the other does not
    everything = job(lora=None).counted(abstract_mesh({"data": 1, "fsdp": 1, "tensor": 1}))
    assert everything["parameters"] == 0 and everything["trained"] == 4 * num_params(LLADA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": Lora(rank=5000)}, r"lora.rank=5000 is above the smaller side of q \(4096\)"),
        ({"model": dataclasses.replace(LLADA, max_length=256)}, "prompt \\+ canvas = 768 exceeds the model's context"),
    ],
)
def test_jobs_are_refused_at_the_door(change, message):
    with pytest.raises(ValueError, match=message):
        job(**change)


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that takes no time; `answer` is what it gives, `asked` what it was given."""
    cost = Cost(collections.Counter({"other": 3 * 10**9}), collections.Counter({Traffic("all-gather", 8): 10**9}))
    fits = Compiled(arguments=3 * 2**30, temporaries=2**30, output=0, program=0, steps={"step": cost}, seconds=1.0)
    found = {"answer": fits, "asked": []}

    def compile_job(where, mesh, job):
        found["asked"].append((where.name, mesh, job))
        return found["answer"]

    monkeypatch.setattr("lrd_jax.plan.planner.compile_job", compile_job)
    monkeypatch.setattr("lrd_jax.plan.planner.require_compiler", lambda: None)
    return found


LINE = ["plan", "llada-8b", "--train", str(RECIPES / "llada-8b-lora-gsm8k.toml"), "--topology", "v5e:2x4"]


def test_a_recipe_is_planned_on_its_mesh_and_largest_bucket(compiler, capsys):
    assert main([*LINE, "--json"]) == 0
    ((name, mesh, asked),) = compiler["asked"]
    assert (name, mesh) == ("v5e:2x4", {"data": 1, "fsdp": 8, "tensor": 1})
    assert (asked.batch, asked.bucket.prompt, asked.bucket.canvas) == (32, 256, 256)
    (row,) = json.loads(capsys.readouterr().out)["meshes"]
    assert row["tokens"] == 32 * 512 and row["compute_seconds"] == 2.0 and row["collective_seconds"] > 0
    chip = parse_slice("v5e:2x4").chip
    assert row["collective_seconds"] == pytest.approx(chip.collective_seconds("all-gather", 1e9, 8))


def test_mesh_and_batch_may_be_others(compiler, capsys):
    assert main([*LINE, "--mesh", "fsdp=4,tensor=2", "--batch", "8"]) == 0
    ((_, mesh, asked),) = compiler["asked"]
    assert (mesh["fsdp"], mesh["tensor"], asked.batch) == (4, 2, 8)
    out = capsys.readouterr().out
    assert "fsdp=4,tensor=2" in out and "256 + 256 tokens" in out and "not measurements" in out


def test_a_step_that_does_not_fit_is_a_status(compiler, capsys):
    compiler["answer"] = TooLarge(90 * 2**30)
    assert main(LINE) == INCOMPLETE
    out = capsys.readouterr().out
    assert "does not fit" in out and "90.00" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([*LINE[:5], "v5e:2x2"], "give sizes whose product is 4"),
        ([*LINE, "--batch", "12"], "batch=12 must be a multiple of the 8 parts"),
        ([*LINE[:3], "none.toml", *LINE[4:]], "none.toml: no such file"),
        (["plan", "lrd-tiny", *LINE[2:]], "exceeds the model's context"),
    ],
)
def test_what_cannot_be_planned_is_one_message(compiler, capsys, line, message):
    assert main(line) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and message in err and "Traceback" not in err


def test_gpus_are_not_asked_for_a_step(capsys):
    with pytest.raises(SystemExit) as ended:
        main([*LINE[:4], "--gpu", "h100:8"])
    assert ended.value.code == USER_ERROR
    assert "a training step is compiled, never counted" in capsys.readouterr().err


@NEEDS_LIBTPU
@pytest.mark.slow
def test_the_tpu_compiler_plans_a_step(tmp_path, capsys):
    recipe = (RECIPES / "llada-8b-lora-gsm8k.toml").read_text().replace("fsdp = 8", "fsdp = 4")
    for length in ("256", "512"):
        recipe = recipe.replace(f"= {length}", "= 16")
    (tmp_path / "recipe.toml").write_text(recipe.replace("rank = 16", "rank = 2"))
    line = f"plan lrd-tiny --train {tmp_path / 'recipe.toml'} --topology v5e:2x2 --json"
    assert main(line.split()) == 0
    (row,) = json.loads(capsys.readouterr().out)["meshes"]
    assert row["bytes"]["total"] > sum(row["bytes"][name] for name in ("parameters", "trained", "moments"))
    assert row["compute_seconds"] > 0 and row["collective_seconds"] > 0
