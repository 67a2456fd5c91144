"""`lrd_jax.load`: a converted checkpoint, a Hugging Face folder or a name; onto a mesh; what is no model is refused."""

import json
import shutil

import chex
import goldens
import jax
import jax.numpy as jnp
import pytest
from orbax.checkpoint import v1 as ocp

import lrd_jax
from lrd_jax import checkpoint
from lrd_jax.convert import convert, read_hf
from lrd_jax.models import Model, ModelConfig
from lrd_jax.sharding import make_mesh, param_shardings

SOURCE = goldens.GOLDEN / "tiny-llada"


@pytest.fixture(scope="module")
def orbax(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "orbax"
    convert(SOURCE, folder)
    return folder


@pytest.fixture(params=["orbax", "hugging face"])
def folder(request, orbax):
    return orbax if request.param == "orbax" else SOURCE


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


def test_a_checkpoint_whose_arrays_are_gone(orbax, tmp_path):
    folder = copy(orbax, tmp_path)
    shutil.rmtree(folder / "state" / "d")
    (folder / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(
        ValueError, match=r"does not hold the parameters of its config(.|\n)*blocks\.q cannot be opened"
    ):
        lrd_jax.load(folder)


def test_a_checkpoint_that_lost_data(orbax, monkeypatch):
    def lost(*args):
        raise ValueError('NOT_FOUND: Error reading "table/c/0/0" [tensorstore_spec=...]')

    monkeypatch.setattr(ocp, "load", lost)
    with pytest.raises(ValueError, match=r'orbax is damaged:\n  - NOT_FOUND: Error reading "table/c/0/0"$'):
        lrd_jax.load(orbax)


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
