"""`lrd_jax.load`: a converted checkpoint, a Hugging Face folder or a name; onto a mesh; what is no model is refused."""

import json
import os
import shutil

import chex
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
from orbax.checkpoint import v1 as ocp

import lrd_jax
from lrd_jax import checkpoint
from lrd_jax.convert import ConversionError, convert, export, read_hf, store, verify
from lrd_jax.models import Model, ModelConfig
from lrd_jax.sharding import make_mesh, param_shardings

pytestmark = pytest.mark.slow

SOURCE = goldens.GOLDEN / "tiny-llada"


@pytest.fixture(scope="module")
def orbax(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "orbax"
    convert(SOURCE, folder)
    return folder


@pytest.fixture(params=["orbax", "hugging face"])
def folder(request, orbax):
    return orbax if request.param == "orbax" else SOURCE


@pytest.fixture(scope="module")
def old(orbax, tmp_path_factory):
    """A checkpoint of a release that wrote no checksums."""
    folder = shutil.copytree(orbax, tmp_path_factory.mktemp("old") / "orbax")
    (folder / "checksums.json").unlink()
    return folder


def copy(orbax, tmp_path):
    return shutil.copytree(orbax, tmp_path / "copy")


def test_load_unpacks(folder):
    loaded = lrd_jax.load(folder)
    model, params, tokenizer, config = loaded.model, loaded.params, loaded.tokenizer, loaded.config
    wanted_config, wanted = read_hf(SOURCE)
    assert model == Model(config) and config == wanted_config
    assert tokenizer is None
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    chex.assert_trees_all_equal(params, wanted, strict=True)


def test_load_casts(folder):
    params = lrd_jax.load(str(folder), dtype=jnp.bfloat16).params
    _, wanted = read_hf(goldens.GOLDEN / "tiny-llada-bf16")
    chex.assert_trees_all_equal(params, wanted, strict=True)


def test_load_refuses_other_dtypes(folder):
    with pytest.raises(ValueError, match=r"'int8' is not one for weights\n.*bfloat16"):
        lrd_jax.load(folder, dtype=jnp.int8)


def test_load_places_on_a_mesh(folder):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    loaded = lrd_jax.load(folder, mesh=mesh)
    model, params = loaded.model, loaded.params
    jax.tree.map(
        lambda leaf, sharding: leaf.sharding == sharding or pytest.fail(), params, param_shardings(model, mesh)
    )
    assert params["blocks"]["up"].addressable_shards[0].data.size * 4 == params["blocks"]["up"].size
    _, wanted = read_hf(SOURCE)
    chex.assert_trees_all_equal(params, wanted, strict=True)


def test_load_goes_to_the_default_device(folder):
    device = jax.devices()[3]
    with jax.default_device(device):
        assert lrd_jax.load(folder).params["table"].devices() == {device}


def test_load_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "embedded_models", lambda: {"tiny": SOURCE})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # a name wins over a folder
    assert lrd_jax.load("tiny").config == read_hf(SOURCE)[0]
    assert checkpoint.find_model("./tiny").resolve() == tmp_path / "tiny"


def test_an_unknown_name_lists_what_there_is(monkeypatch):
    monkeypatch.setattr(checkpoint, "embedded_models", lambda: {"tiny": SOURCE, "other": SOURCE})
    with pytest.raises(
        ValueError, match=r"no model 'tony'(.|\n)*tiny, other\n(.|\n)*lrd-jax convert(.|\n)*Hugging Face"
    ):
        lrd_jax.load("tony")


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json is absent(.|\n)*only safetensors are read"):
        lrd_jax.load(tmp_path)


def test_a_checkpoint_without_our_metadata(tmp_path):
    ocp.save(tmp_path / "foreign", {"x": jnp.zeros(3)}, custom_metadata={"step": 7})
    with pytest.raises(
        ValueError, match=r"foreign is an Orbax checkpoint, but not one that was converted here(.|\n)*'step': 7"
    ):
        lrd_jax.load(tmp_path / "foreign")


def test_a_checkpoint_beside_another_config(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    hf = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(hf | {"n_layers": 5}))
    with pytest.raises(ValueError, match=r"copy holds another model(.|\n)*num_layers=3\n.*config\.json: num_layers=5"):
        lrd_jax.load(folder)


def test_a_checkpoint_of_another_config_than_asked_for(orbax):
    config = ModelConfig.from_json(read_hf(SOURCE)[0].to_json() | {"norm_eps": 0.5, "max_length": 7})
    with pytest.raises(ValueError, match=r"max_length=512, norm_eps=1e-05\n.*asked for: max_length=7, norm_eps=0.5"):
        checkpoint.restore(orbax, config=config)


def test_a_checkpoint_whose_arrays_are_gone(old, tmp_path):
    folder = copy(old, tmp_path)
    shutil.rmtree(folder / "state" / "d")
    (folder / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(
        ValueError, match=r"does not hold the parameters of its config(.|\n)*blocks\.q cannot be opened"
    ):
        lrd_jax.load(folder)


def data_files(folder):
    return sorted((folder / "state" / "d").iterdir())


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), cut], ids=["absent", "cut"])
def test_a_lost_or_cut_file_is_named(orbax, tmp_path, damage):
    for i in range(0, len(data_files(orbax)), 5):
        folder = copy(orbax, tmp_path / str(i))
        file = data_files(folder)[i]
        damage(file)
        with pytest.raises(
            ConversionError, match=rf"copy is damaged:\n  - state/d/{file.name} (is absent|has \d+ bytes)"
        ):
            lrd_jax.load(folder)


def test_a_checkpoint_without_checksums_that_lost_data(old, tmp_path):
    _, wanted = read_hf(SOURCE)
    refused = 0
    for i in range(0, len(data_files(old)), 3):
        folder = copy(old, tmp_path / str(i))
        cut(data_files(folder)[i])
        try:
            params = lrd_jax.load(folder).params
        except ConversionError:
            refused += 1
        else:  # that half held nothing which is still in use
            jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b, strict=True), params, wanted)
    assert refused


def flip(file, where=0.5, bit=3):
    data = bytearray(file.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    file.write_bytes(data)


def test_a_flipped_bit_is_refused_with_the_tensor(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    flip(max(data_files(folder), key=lambda file: file.stat().st_size), where=0.25)
    with pytest.raises(ConversionError, match=r"copy is damaged:\n  - \S+: .*Digest mismatch"):
        lrd_jax.load(folder)
    with pytest.raises(ConversionError, match=r"copy is damaged:\n  - \S+: .*Digest mismatch"):
        verify(folder)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(orbax, tmp_path):
    _, wanted = read_hf(SOURCE)
    files = data_files(orbax)  # in another order with every conversion: their names are drawn
    tensors = [file for file in files if file.stat().st_size > 10_000]
    rng = np.random.default_rng(0)
    flips = [(tensors[rng.integers(len(tensors))], 0.7 * rng.random(), True) for _ in range(20)]
    rest = [*files, orbax / "state" / "manifest.ocdbt"]  # ends of files are no longer in use, most of them
    flips += [(rest[rng.integers(len(rest))], rng.random(), False) for _ in range(20)]
    for i, (file, where, in_use) in enumerate(flips):
        folder = copy(orbax, tmp_path / str(i))
        flip(folder / file.relative_to(orbax), where, rng.integers(8))
        try:
            params = lrd_jax.load(folder).params
        except ConversionError:
            pass
        else:
            assert not in_use
            jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b, strict=True), params, wanted)
        shutil.rmtree(folder)


def test_verify_passes_what_was_written(orbax, old, tmp_path):
    convert(SOURCE, tmp_path / "cast", dtype="bfloat16")
    seen = []
    for folder in (orbax, old, tmp_path / "cast"):
        assert verify(folder, progress=lambda *args: seen.append(args)).config == read_hf(SOURCE)[0]
        done, total, _ = seen[-1]
        assert done == total


def test_verify_names_every_file_and_tensor(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    overwrite(folder, ("final_norm",))
    overwrite(folder, ("head",))
    flip(folder / "_CHECKPOINT_METADATA", 0.999)
    (folder / "commit_success.txt").unlink()
    with pytest.raises(ConversionError) as caught:
        verify(folder)
    for words in (
        "_CHECKPOINT_METADATA has sha256",
        "commit_success.txt is absent",
        "model.transformer.ln_f.weight has sha256",
        "model.transformer.ff_out.weight has sha256",
    ):
        assert any(words in problem for problem in caught.value.problems), words


def test_verify_finds_another_cast(tmp_path):
    convert(SOURCE, tmp_path / "cast", dtype="bfloat16")
    overwrite(tmp_path / "cast", ("final_norm",))
    for command in (verify, lambda folder: export(folder, tmp_path / "hf")):
        with pytest.raises(ConversionError, match=r"ln_f\.weight has sha256 \w+, \w+ was written"):
            command(tmp_path / "cast")


@pytest.mark.parametrize("text", ["{", "[]", '{"state/d": {}}', '{"../x": {"bytes": 1}}', '{"a": {"bytes": true}}'])
def test_checksums_that_are_none_are_refused(orbax, tmp_path, text):
    folder = copy(orbax, tmp_path)
    (folder / "checksums.json").write_text(text)
    for command in (lrd_jax.load, verify):
        with pytest.raises(ConversionError, match=r"copy is damaged:\n  - checksums\.json (cannot be read|has)"):
            command(folder)


def overwrite(folder, path):
    """Turns a parameter of a converted checkpoint into ones, with a checksum to match."""
    array = ts.open(store._spec(folder, path), open=True).result()
    array[...].write(np.ones((), array.dtype.numpy_dtype)).result()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "checksums.json", "config.json", "state/manifest.ocdbt"])
@pytest.mark.parametrize("kind", ["pipe", "device", "lost"])
def test_what_is_no_file_is_named_and_not_read(orbax, tmp_path, name, kind):
    folder = copy(orbax, tmp_path)
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero" if kind == "device" else "nowhere")
    for use in (lrd_jax.load, verify, lambda folder: export(folder, tmp_path / "out")):
        with pytest.raises(ConversionError, match=f"copy is damaged:(?s:.*){name} "):
            use(folder)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_place_of_the_checksums_is_damage(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    (folder / "checksums.json").unlink()
    (folder / "checksums.json").mkdir()
    for use in (lrd_jax.load, verify):
        with pytest.raises(ConversionError, match=r"checksums\.json cannot be read"):
            use(folder)


def test_a_checkpoint_with_a_damaged_config(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"copy is damaged:\n  - config\.json is not JSON"):
        lrd_jax.load(folder)


def test_a_checkpoint_of_a_later_format(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    file = folder / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="its format version is 2, this release reads 1"):
        lrd_jax.load(folder)


def test_a_checkpoint_with_damaged_metadata(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    (folder / "_CHECKPOINT_METADATA").write_text("{")
    with pytest.raises(ValueError, match="copy is an Orbax checkpoint, but its metadata is damaged"):
        lrd_jax.load(folder)
