"""Conversion: bit for bit both ways, streaming, whole or not at all, and every problem of a bad source at once."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import chex
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from quick import some_quick
from safetensors.numpy import load_file, save_file

import lrd_jax
from lrd_jax.convert import ConversionError, conversion, convert, export, hub, read_hf, store, tables, write_hf
from lrd_jax.models import Model, ModelConfig, positions_of

CHECKPOINTS = ("tiny-llada", "tiny-llada-gqa", "tiny-llada-bf16", "tiny-dream")


def tensors_of(folder):
    """Every tensor of a Hugging Face folder, read by the safetensors library."""
    return {name: array for file in sorted(folder.glob("*.safetensors")) for name, array in load_file(file).items()}


def assert_same_bits(got, wanted):
    assert got.keys() == wanted.keys()
    for name in wanted:
        assert (got[name].dtype, got[name].shape) == (wanted[name].dtype, wanted[name].shape), name
        assert got[name].tobytes() == wanted[name].tobytes(), name


def assert_same_params(got, wanted):
    chex.assert_trees_all_equal(got, wanted, strict=True)


def abstract(config, dtype=jnp.float32):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)  # noqa: E731
    return jax.tree.map(place, Model(config).abstract_params(dtype))


@pytest.fixture(scope="module", params=some_quick(CHECKPOINTS, 1))
def converted(request, tmp_path_factory):
    """(source, converted folder, exported folder) of each tiny checkpoint, cut into several slabs a tensor."""
    work = tmp_path_factory.mktemp(request.param)
    source = goldens.GOLDEN / request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SLAB_ELEMENTS", 3000)
        convert(source, work / "orbax", verify=True)
        export(work / "orbax", work / "hf", max_shard_bytes=250_000)
    return source, work / "orbax", work / "hf"


def test_round_trip_keeps_every_bit(converted):
    source, _, back = converted
    assert_same_bits(tensors_of(back), tensors_of(source))
    assert (back / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_round_trip_in_whole_tensors(tmp_path):
    source = goldens.GOLDEN / "tiny-dream"
    convert(source, tmp_path / "orbax")
    export(tmp_path / "orbax", tmp_path / "hf")
    assert_same_bits(tensors_of(tmp_path / "hf"), tensors_of(source))
    assert sorted(file.name for file in (tmp_path / "hf").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    ]


def test_export_shards_by_size_and_indexes_them(converted):
    back = converted[2]
    index = json.loads((back / "model.safetensors.index.json").read_text())
    held = {name: file.name for file in back.glob("*.safetensors") for name in load_file(file)}
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors_of(back).values())
    sizes = [sum(array.nbytes for array in load_file(file).values()) for file in back.glob("*.safetensors")]
    assert len(sizes) > 1 and max(sizes) <= 250_000


def test_orbax_alone_restores_what_is_read_in_memory(converted):
    config, params = read_hf(converted[0])
    assert_same_params(ocp.load(str(converted[1]), abstract(config, params["table"].dtype)), params)


def test_logits_of_the_converted_checkpoint(converted):
    name = converted[0].name
    loaded = lrd_jax.load(converted[1])
    model, params = loaded.model, loaded.params
    stored = goldens.arrays(f"{name}.forward")
    ids, wanted = jnp.asarray(stored["ids_b1_l5.input_ids"]), stored["ids_b1_l5.logits"]
    mask = jnp.ones(ids.shape, bool)
    got = np.asarray(model.logits(params, model.hidden(params, model.embed(params, ids), positions_of(mask), mask)))
    if name == "tiny-llada-bf16":
        difference = np.abs(got - wanted)
        assert difference.max() < 0.5 and difference.mean() < 0.06
    else:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4)


def test_metadata_says_where_it_came_from(converted):
    source, folder, _ = converted
    info = store.read_info(folder)
    assert ocp.metadata(str(folder)).custom_metadata == info.to_json()
    assert info.source == str(source)
    assert info.revision is None
    assert info.dtype is None
    assert info.config == ModelConfig.from_hf(json.loads((source / "config.json").read_text()))
    wanted = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in tensors_of(source).items()}
    assert {name: said["sha256"] for name, said in info.tensors.items()} == wanted


def test_cast(tmp_path):
    info = convert(goldens.GOLDEN / "tiny-llada", tmp_path / "orbax", dtype="bfloat16", verify=True)
    export(tmp_path / "orbax", tmp_path / "hf")
    assert info.dtype == "bfloat16"
    assert_same_bits(tensors_of(tmp_path / "hf"), tensors_of(goldens.GOLDEN / "tiny-llada-bf16"))


def test_cast_is_named_in_the_config(tmp_path):
    convert(goldens.GOLDEN / "tiny-dream", tmp_path / "orbax", dtype="bfloat16")
    assert json.loads((tmp_path / "orbax" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_zeros_are_stored_too(tmp_path):
    config, params = read_hf(goldens.GOLDEN / "tiny-dream")
    zeros = jax.tree.map(np.zeros_like, params)
    write_hf(zeros, config, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "orbax")
    assert_same_params(ocp.load(str(tmp_path / "orbax"), abstract(config)), zeros)


def test_progress_counts_every_byte_once(tmp_path):
    seen = []
    convert(goldens.GOLDEN / "tiny-llada", tmp_path / "orbax", progress=lambda *args: seen.append(args))
    arrays = tensors_of(goldens.GOLDEN / "tiny-llada")
    total = sum(array.nbytes for array in arrays.values())
    done = [done for done, _, _ in seen]
    assert done == sorted(done) and done[-1] == total
    assert {all_ for _, all_, _ in seen} == {total}
    assert {name for _, _, name in seen} == arrays.keys()


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_write_hf_reads_back(tmp_path, family):
    config, params = read_hf(goldens.GOLDEN / f"tiny-{family}")
    params = jax.tree.map(jnp.asarray, params)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    write_hf(params, config, tmp_path / "hf", dtype="bfloat16", tokenizer=tmp_path / "words")
    found, back = read_hf(tmp_path / "hf")
    assert found == config
    assert_same_params(back, jax.tree.map(lambda x: np.asarray(x.astype(jnp.bfloat16)), params))
    assert (tmp_path / "hf" / "tokenizer.json").exists()


def test_write_hf_refuses_other_parameters(tmp_path):
    config, params = read_hf(goldens.GOLDEN / "tiny-llada")
    del params["head"]
    with pytest.raises(ConversionError, match=r"head: got None, wanted \(64, 384\)"):
        write_hf(params, config, tmp_path / "hf")
    assert not list(tmp_path.iterdir())


def test_write_hf_refuses_what_a_config_file_cannot_say(tmp_path):
    config, params = read_hf(goldens.GOLDEN / "tiny-dream")
    other = ModelConfig.from_json(config.to_json() | {"scale_logits": True})
    with pytest.raises(ValueError, match="cannot hold scale_logits=True"):
        write_hf(params, other, tmp_path / "hf")
    assert not list(tmp_path.iterdir())


# Bad sources. Each breaks a copy of a checkpoint whose one weight file and config are easy to edit.


@pytest.fixture
def source(tmp_path):
    """A copy of tiny-llada in bfloat16 and two files, in a folder whose name must not be taken for a URL."""
    folder = tmp_path / "a b%20#?" / "source"
    shutil.copytree(goldens.GOLDEN / "tiny-llada-bf16", folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def edit_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_tensors(folder, edit, number=1):
    file = folder / f"model-0000{number}-of-00002.safetensors"
    arrays = load_file(file)
    edit(arrays)
    save_file(arrays, file)


def edit_header(folder, edit):
    file = folder / "model-00001-of-00002.safetensors"
    raw = file.read_bytes()
    data = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:data])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[data:])


def edit_index(folder, edit):
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    edit(index["weight_map"])
    file.write_text(json.dumps(index))


WTE = "model.transformer.wte.weight"
NORM = "model.transformer.blocks.0.attn_norm.weight"


def _truncate(folder):
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


BROKEN = {
    "unknown model_type": (
        lambda f: edit_config(f, model_type="gpt2"),
        ["'gpt2' is not supported", "'llada', 'Dream'"],
    ),
    "not built": (lambda f: edit_config(f, alibi=True), ["alibi=True (only False is built)"]),
    "config absent": (lambda f: (f / "config.json").unlink(), ["config.json is absent"]),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json is not JSON"]),
    "config no object": (lambda f: (f / "config.json").write_text("[]"), ["config.json"]),
    "no weights": (
        lambda f: (f / "model.safetensors.index.json").unlink(),
        ["neither model.safetensors nor model.safetensors.index.json"],
    ),
    "index no index": (
        lambda f: (f / "model.safetensors.index.json").write_text("{}"),
        ["model.safetensors.index.json is not an index"],
    ),
    "missing tensor": (
        lambda f: (edit_tensors(f, lambda t: t.pop(WTE)), edit_index(f, lambda w: w.pop(WTE))),
        [f"missing tensor {WTE} [384, 64]"],
    ),
    "extra tensor": (
        lambda f: edit_tensors(f, lambda t: t.update(extra=np.zeros(3, np.float32))),
        ["unexpected tensor extra [3]"],
    ),
    "wrong shape": (
        lambda f: edit_tensors(f, lambda t: t.update({NORM: np.zeros(65, np.float32)})),
        [f"{NORM} has shape [65], wanted [64]"],
    ),
    "wrong dtype": (
        lambda f: edit_tensors(f, lambda t: t.update({NORM: np.zeros(64, np.int8)})),
        [f"{NORM} has dtype I8, wanted one of F32, F16, BF16"],
    ),
    "dtypes of a stack": (
        lambda f: edit_tensors(f, lambda t: t.update({NORM: np.zeros(64, np.float32)})),
        ["blocks.attn_norm has dtypes BF16, F32 in different blocks", "--dtype"],
    ),
    "truncated": (_truncate, ["model-00002-of-00002.safetensors: truncated: the header promises"]),
    "empty file": (
        lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b""),
        ["model-00001-of-00002.safetensors: truncated: no whole header in 0 bytes"],
    ),
    "negative offsets": (
        lambda f: edit_header(f, lambda h: h[NORM].update(data_offsets=[-128, 0])),
        [f"{NORM} of BF16[64] lies at bytes -128 to 0"],
    ),
    "shape no numbers": (
        lambda f: edit_header(f, lambda h: h[NORM].update(shape=["x"])),
        ["its header is not that of a safetensors file"],
    ),
    "no safetensors": (
        lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b"\5" + bytes(7) + b"hello world"),
        ["model-00001-of-00002.safetensors: its header is not that of a safetensors file"],
    ),
    "bytes and shape": (
        lambda f: edit_header(f, lambda h: h[NORM].update(shape=[65])),
        [f"{NORM} of BF16[65] has 128 bytes, wanted 130"],
    ),
    "absent file": (
        lambda f: (f / "model-00001-of-00002.safetensors").unlink(),
        ["names model-00001-of-00002.safetensors, which is absent"],
    ),
    "index misplaces": (
        lambda f: edit_index(f, lambda w: w.update({WTE: "model-00002-of-00002.safetensors"})),
        [f"puts {WTE} into model-00002-of-00002.safetensors, which does not hold it"],
    ),
    "tensor twice": (
        lambda f: edit_tensors(f, lambda t: t.update({WTE: np.zeros((384, 64), np.float32)}), number=2),
        [f"{WTE} is both in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_source_is_refused_and_leaves_nothing(source, case):
    damage, wanted = BROKEN[case]
    damage(source)
    with pytest.raises(ConversionError) as caught:
        convert(source, source.parent / "dest")
    message = str(caught.value)
    assert str(source) in message
    for text in wanted:
        assert text in message
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_all_problems_come_in_one_error(source):
    edit_tensors(source, lambda t: (t.pop(WTE), t.update({NORM: np.zeros(65, np.int8), "extra": np.zeros(1, np.int8)})))
    edit_index(source, lambda w: w.update({"other": "model-00003-of-00002.safetensors"}))
    with pytest.raises(ConversionError) as caught:
        convert(source, source.parent / "dest")
    for text in (
        "extra [1]",
        "has shape [65]",
        "has dtype I8",
        f"puts {WTE}",
        "model-00003-of-00002.safetensors, which",
    ):
        assert any(text in problem for problem in caught.value.problems), text


def test_a_broken_config_does_not_hide_broken_files(source):
    edit_config(source, model_type="gpt2")
    _truncate(source)
    with pytest.raises(ConversionError) as caught:
        convert(source, source.parent / "dest")
    assert len(caught.value.problems) == 2


def test_blocks_of_different_dtypes_convert_with_a_cast(source):
    edit_tensors(source, lambda t: t.update({NORM: t[NORM].astype(np.float32)}))
    convert(source, source.parent / "dest", dtype="bfloat16", verify=True)
    export(source.parent / "dest", source.parent / "hf")
    assert_same_bits(tensors_of(source.parent / "hf"), tensors_of(goldens.GOLDEN / "tiny-llada-bf16"))


def test_an_existing_destination_is_left_alone(source):
    dest = source.parent / "dest"
    dest.mkdir()
    (dest / "file").write_text("mine")
    for command in (lambda: convert(source, dest), lambda: export(source, dest), lambda: write_hf({}, None, dest)):
        with pytest.raises(ConversionError, match="already exists"):
            command()
    assert (dest / "file").read_text() == "mine"


def test_unknown_dtype_is_refused(source):
    with pytest.raises(ConversionError, match=r"'int4' is not one for weights\n.*float32, float16, bfloat16"):
        convert(source, source.parent / "dest", dtype="int4")


def test_export_needs_a_converted_checkpoint(source):
    with pytest.raises(ConversionError, match="is not an Orbax checkpoint"):
        export(source, source.parent / "dest")
    with pytest.raises(ConversionError, match="a shard of 0 bytes"):
        export(source, source.parent / "dest", max_shard_bytes=0)
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def _overwrite(folder, path):
    """Turns a parameter of a converted checkpoint into ones."""
    import tensorstore as ts

    array = ts.open(store._spec(folder, path), open=True).result()
    array[...].write(np.ones((), array.dtype.numpy_dtype)).result()


def test_verify_finds_what_does_not_read_back(source, monkeypatch):
    open_array = conversion.open_array

    def damaging(folder, path):
        if path == ("final_norm",):
            _overwrite(folder, path)
        return open_array(folder, path)

    monkeypatch.setattr(conversion, "open_array", damaging)
    with pytest.raises(
        ConversionError, match=r"does not read back(.|\n)*model\.transformer\.ln_f\.weight reads back as"
    ):
        convert(source, source.parent / "dest", verify=True)
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_export_finds_a_damaged_checkpoint(source):
    convert(source, source.parent / "orbax")
    _overwrite(source.parent / "orbax", ("final_norm",))
    with pytest.raises(ConversionError, match=r"orbax is damaged:\n  - model\.transformer\.ln_f\.weight has sha256"):
        export(source.parent / "orbax", source.parent / "hf")
    assert not (source.parent / "hf").exists()


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_conversion_leaves_nothing(source, error):
    def stop(done, total, name):
        raise error

    for command in (convert, lambda *args, **kwargs: write_hf(*reversed(read_hf(args[0])), args[1], **kwargs)):
        with pytest.raises(type(error)):
            command(source, source.parent / "dest", progress=stop)
        assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_a_full_disk_is_said_so(source, monkeypatch):
    class Full:
        def __getitem__(self, index):
            raise ValueError('RESOURCE_EXHAUSTED: Error writing "x" [tensorstore_spec=...]')

    monkeypatch.setattr(conversion, "create_array", lambda *args: Full())
    with pytest.raises(
        ConversionError, match=r'cannot write the checkpoint\n  - RESOURCE_EXHAUSTED: Error writing "x"$'
    ):
        convert(source, source.parent / "dest")
    assert [path.name for path in source.parent.iterdir()] == ["source"]


KILLED = {
    "in the middle": "convert(source, dest, progress=lambda done, total, name: done > total / 2 and kill())",
    "after the arrays": "convert(source, dest, progress=lambda done, total, name: done == total and kill())",
    "in Orbax's save": "ocp.save = lambda *a, s=ocp.save, **k: (s(*a, **k), kill()); convert(source, dest)",
}


def run_python(script):
    return subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLED)
def test_a_killed_conversion_leaves_nothing_that_loads(tmp_path, when):
    source, dest = goldens.GOLDEN / "tiny-llada-bf16", tmp_path / "dest"
    begin = f"""
import jax, os, signal, lrd_jax
from pathlib import Path
from lrd_jax.convert import convert
from orbax.checkpoint import v1 as ocp
source, dest = Path({str(source)!r}), Path({str(dest)!r})
"""
    kill = "def kill(): os.kill(os.getpid(), signal.SIGKILL)\n"
    killed = run_python(begin + kill + KILLED[when])
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not dest.exists()
    assert list(tmp_path.iterdir())  # something is left, and none of it loads; then the same command runs through
    after = run_python(f"""{begin}
loaded = lrd_jax.load(source)
model, params = loaded.model, loaded.params
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
for folder in [path for path in dest.parent.rglob("*") if path.is_dir()]:
    for load in (lrd_jax.load, lambda folder: ocp.load(str(folder), abstract)):
        try:
            load(folder)
        except ValueError:
            continue
        raise SystemExit(f"{{folder}} loads")
convert(source, dest)
lrd_jax.load(dest)
""")
    assert after.returncode == 0, after.stderr.decode()


def test_hub_ids_and_presets_are_downloaded(source, monkeypatch):
    snapshot = source.rename(source.parent / "0123abc")
    asked = []

    def download(repo, *, revision, allow_patterns):
        asked.append((repo, revision))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    info = convert("llada-8b-base", source.parent / "dest", revision="main")
    assert (info.source, info.revision) == ("GSAI-ML/LLaDA-8B-Base", "0123abc")
    hub.find_source("some/model")
    assert asked == [("GSAI-ML/LLaDA-8B-Base", "main"), ("some/model", None)]


def test_no_network_is_said_so(tmp_path, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(
        ConversionError, match=r"some/model is not a folder here(.|\n)*no connection(.|\n)*give the folder"
    ):
        convert("some/model", tmp_path / "dest")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./nothing", "/nothing/here"])
def test_a_source_that_is_nothing_names_the_presets(name):
    with pytest.raises(ConversionError, match=r"there is no folder(.|\n)*dream-7b-instruct"):
        hub.find_source(name)


def test_a_revision_of_a_local_folder_is_refused(source):
    with pytest.raises(ConversionError, match="revision 'v2' can be chosen on the hub only"):
        hub.find_source(source, "v2")


def test_a_message_spells_out_a_hundred_problems():
    error = ConversionError("x is wrong:", (f"problem {i}" for i in range(150)))
    assert len(error.problems) == 150
    assert str(error).splitlines()[-2:] == ["  - problem 99", "  - and 50 more"]
