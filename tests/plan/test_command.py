"""`lrd-jax plan` as it is typed; with the TPU compiler itself where libtpu is installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from lrd_jax.cli import INCOMPLETE, USER_ERROR, main
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.plan.chips import parse_slice
from lrd_jax.plan.compiling import Compiled, compile_job
from lrd_jax.plan.decode import DecodeJob
from lrd_jax.plan.shapes import model_config

NEEDS_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the TPU compiler)")


def test_gpus_are_counted(capsys):
    assert main(["plan", "llada-8b", "--gpu", "h100:8", "--batch", "32", "--cache", "dual", "--json"]) == 0
    out, _ = capsys.readouterr()
    found = {mesh["mesh"]["tensor"]: mesh for mesh in json.loads(out)["meshes"]}
    assert sorted(found) == [1, 2, 4, 8]
    assert found[8]["bytes"]["cache"] == 2 * 32 * 32 * (512 + 64) * 4 * 128 * 2
    assert all(mesh["compiled"] is False for mesh in found.values())


def test_the_table_of_gpus_says_what_is_missing(capsys):
    assert main(["plan", "dream-7b", "--gpu", "l4:2", "--mesh", "tensor=2"]) == 0
    out, _ = capsys.readouterr()
    assert "2 x l4" in out and "tensor=2" in out
    assert "not compiled" in out and "temporaries are not in it" in out
    assert "lrd-jax generate --model CHECKPOINT --mesh tensor=2" in out


def test_no_mesh_that_fits_is_a_status(capsys):
    assert main(["plan", "llada-8b", "--gpu", "l4", "--cache", "dual", "--batch", "512"]) == INCOMPLETE
    assert "does not fit" in capsys.readouterr().out


def test_without_libtpu_one_message_says_where_it_is(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plan", "llada-8b", "--topology", "v5e:2x4"]) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install 'lrd-jax[tpu]'" in err and "--gpu" in err and "Traceback" not in err


def test_a_process_that_ends_is_told(monkeypatch):
    job = DecodeJob(
        model=model_config("lrd-tiny"), config=DecodeConfig.plain(8), batch=1, prompt_length=8, dtype="bfloat16"
    )
    monkeypatch.setattr("lrd_jax.plan.compiling.require_compiler", lambda: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match=r"the TPU compiler ended with status 1 on v5e:1x1.*it said nothing"):
        compile_job(parse_slice("v5e:1x1"), {"data": 1, "fsdp": 1, "tensor": 1}, job)


@NEEDS_LIBTPU
@pytest.mark.slow
def test_the_tpu_compiler_plans_a_decode(capsys):
    line = (
        "plan lrd-tiny --topology v5e:2x2 --mesh data=4 --batch 8 --prompt-length 256 --gen-length 32 --block-length 8"
    )
    assert main([*line.split(), "--cache", "dual", "--json"]) == 0
    (mesh,) = json.loads(capsys.readouterr().out)["meshes"]
    assert mesh["mesh"] == {"data": 4, "fsdp": 1, "tensor": 1}
    assert mesh["steps"]["refresh"]["cycles"] > mesh["steps"]["forward"]["cycles"] > 0
    assert {"layers", "attention", "head"} <= set(mesh["steps"]["refresh"]["compute_seconds"])
    assert mesh["bytes"]["total"] > mesh["bytes"]["parameters"] > 0


@NEEDS_LIBTPU
@pytest.mark.slow
def test_several_slices_send_to_each_other():
    job = DecodeJob(
        model=model_config("lrd-tiny"), config=DecodeConfig.plain(8), batch=8, prompt_length=8, dtype="bfloat16"
    )
    found = compile_job(parse_slice("v5e:2x2", 2), {"data": 8, "fsdp": 1, "tensor": 1}, job)
    assert isinstance(found, Compiled)
    assert any(traffic.kind == "send" for traffic in found.steps["forward"].moved)


@NEEDS_LIBTPU
def test_a_slice_that_libtpu_does_not_know():
    line = ["plan", "lrd-tiny", "--topology", "v5e:3x3", "--batch", "9", "--prompt-length", "32"]
    program = "import sys; from lrd_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *line]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == USER_ERROR
    assert "libtpu knows no slice v5e:3x3" in done.stderr and done.stdout == ""
