"""int8 weights: what is written, what comes back, how far the logits are off, and what refuses them."""

import dataclasses
import json
import types

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrd_jax
from lrd_jax import make_decode
from lrd_jax.cli import main
from lrd_jax.convert import ConversionError, convert, export, read_hf, tables, verify, write_hf
from lrd_jax.convert.store import read_info
from lrd_jax.convert.tables import flatten
from lrd_jax.models import Model, positions_of
from lrd_jax.models.quantized import MATRICES, quantize
from lrd_jax.presets import preset
from lrd_jax.sharding import make_mesh
from lrd_jax.train.start import model_and_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["tiny-llada-bf16", "tiny-dream"])
def converted(request, tmp_path_factory):
    """(source, converted folder), cut into several slabs a tensor."""
    source, dest = goldens.GOLDEN / request.param, tmp_path_factory.mktemp(request.param) / "orbax"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SLAB_ELEMENTS", 3000)
        convert(source, dest, quantize="int8", verify=True)
    return source, dest


def test_weights_are_within_half_a_step(converted):
    source, folder = converted
    _, wanted = read_hf(source, dtype="float32")
    blocks = lrd_jax.load(folder).params["blocks"]
    for name, contracted in MATRICES.items():
        axes = tuple(range(1, 1 + contracted))
        values, scale = np.asarray(blocks[name]), np.asarray(blocks[f"{name}_scale"])
        assert (values.dtype, scale.dtype) == (np.int8, np.float32)
        assert np.abs(values).max() == 127
        step = np.expand_dims(scale, axes)
        assert (np.abs(values * step - wanted["blocks"][name]) <= 0.5001 * step).all(), name


def test_all_else_is_as_it_was_stored(converted):
    source, folder = converted
    plain, quantized = (flatten(lrd_jax.load(path, dtype="float32").params) for path in (source, folder))
    kept = [path for path in plain if path[-1] not in MATRICES]
    assert len(kept) >= 5
    for path in kept:
        np.testing.assert_array_equal(plain[path], quantized[path])


def logits(loaded, ids):
    model, params = loaded.model, loaded.params
    mask = jnp.ones(ids.shape, bool)

    @jax.jit
    def run(params):
        return model.logits(params, model.hidden(params, model.embed(params, ids), positions_of(mask), mask))

    return np.asarray(run(params))


def test_logits_are_those_of_the_weights_read_back(converted):
    """Scaling what the integers sum up to is the product with the scaled integers, and near that with the source's."""
    source, folder = converted
    quantized = lrd_jax.load(folder, dtype="float32")
    blocks = dict(quantized.params["blocks"])
    for name, contracted in MATRICES.items():
        scale = np.expand_dims(blocks.pop(f"{name}_scale"), tuple(range(1, 1 + contracted)))
        blocks[name] = blocks[name] * scale
    plain = dataclasses.replace(
        quantized,
        model=Model(dataclasses.replace(quantized.config, quantized=None)),
        params={**quantized.params, "blocks": blocks},
    )
    ids = np.random.default_rng(0).integers(0, quantized.config.vocab_size, (2, 12))
    got, wanted = logits(quantized, ids), logits(plain, ids)
    np.testing.assert_allclose(got, wanted, atol=2e-4)
    stored = logits(lrd_jax.load(source, dtype="float32"), ids)
    assert 0 < (got - stored).std() < 0.05 * stored.std()


def test_what_a_checkpoint_says_and_refuses(converted, tmp_path):
    source, folder = converted
    info = read_info(folder)
    assert info.config.quantized == "int8"
    assert verify(folder) == info
    with pytest.raises(ConversionError, match="holds int8 weights, and not those that it was converted from") as caught:
        export(folder, tmp_path / "hf")
    assert str(source) in caught.value.problems[0]
    loaded = lrd_jax.load(folder)
    with pytest.raises(ValueError, match="cannot hold quantized='int8'"):
        write_hf(loaded.params, loaded.config, tmp_path / "hf", dtype="float32")
    assert not list(tmp_path.iterdir())


def test_the_commands_write_plan_and_refuse_it(tmp_path, capsys):
    source, dest = str(goldens.GOLDEN / "tiny-dream"), str(tmp_path / "orbax")
    assert main(["convert", source, dest, "--quantize", "int8"]) == 0
    sizes = ["--gpu", "h100:1", "--batch", "1", "--gen-length", "8", "--prompt-length", "8", "--json"]
    counted = []
    for model, *more in ([dest], [source, "--quantize", "int8"], [source]):
        capsys.readouterr()
        assert main(["plan", model, *sizes, *more]) == 0
        counted.append(json.loads(capsys.readouterr().out)["meshes"][0]["bytes"]["parameters"])
    params = lrd_jax.load(dest, dtype="bfloat16").params
    assert counted[0] == counted[1] == sum(leaf.nbytes for leaf in jax.tree.leaves(params)) < counted[2]
    assert main(["export", dest, str(tmp_path / "hf")]) == 2
    with pytest.raises(ValueError, match="holds int8 weights; give the checkpoint it was made from"):
        model_and_tokenizer(types.SimpleNamespace(init=dest))


def test_another_kind_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="quantize='int4' is no kind of weights"):
        convert(goldens.GOLDEN / "tiny-dream", tmp_path / "orbax", quantize="int4")
    with pytest.raises(ValueError, match="quantized='int4' must be 'int8' or None"):
        dataclasses.replace(read_hf(goldens.GOLDEN / "tiny-dream")[0], quantized="int4")


def test_a_damaged_scale_is_named(converted, tmp_path, monkeypatch):
    folder = converted[1]
    monkeypatch.setattr("lrd_jax.convert.store.Stored.sha256", lambda self, tensor: "0")
    with pytest.raises(ConversionError, match=r"q_proj\.weight_scale has sha256 0"):
        verify(folder)


def test_a_mesh_gives_the_same_logits(tmp_path):
    """Four devices lengthen the heads of a model with two groups: integers and scales alike."""
    convert(goldens.GOLDEN / "tiny-llada-gqa", tmp_path / "orbax", quantize="int8")
    mesh = make_mesh(fsdp=2, tensor=4, devices=jax.devices()[:8])
    ids = np.random.default_rng(1).integers(0, 300, (2, 8))
    alone, spread = (lrd_jax.load(tmp_path / "orbax", mesh=where, dtype="float32") for where in (None, mesh))
    assert spread.params["blocks"]["q"].dtype == jnp.int8
    np.testing.assert_allclose(logits(spread, ids), logits(alone, ids), atol=2e-4)


def test_quantized_params_decode(converted):
    loaded = lrd_jax.load(converted[1], dtype="float32")
    prompt = jnp.arange(1, 6)[None]
    config = preset("fast", 8, cache="dual")
    canvas = make_decode(loaded.model, config)(loaded.params, prompt).tokens
    assert not (np.asarray(canvas) == loaded.config.mask_id).any()


def test_a_channel_of_zeros_stays_zero():
    values, scale = quantize(np.array([[0.0, 0.0], [1.0, -2.0]], np.float32), axes=(1,))
    np.testing.assert_array_equal(values, [[0, 0], [64, -127]])
    np.testing.assert_allclose(scale, [1, 2 / 127])


def test_a_random_quantized_model_has_the_shapes_of_a_converted_one(converted):
    loaded = lrd_jax.load(converted[1], dtype="float32")
    model = loaded.model
    wanted = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), loaded.params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), model.abstract_params()) == wanted
    assert jax.tree.map(len, model.param_axes(), is_leaf=lambda x: isinstance(x, tuple)) == jax.tree.map(
        jnp.ndim, loaded.params
    )
