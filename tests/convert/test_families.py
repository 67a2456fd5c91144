"""Checkpoints of other kinds than LLaDA's and Dream's own: their layouts, presets, and those refused by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from twin_model import TwinModel

import lrd_jax
from lrd_jax.convert import ConversionError, convert, export, write_hf
from lrd_jax.models import CHECKPOINTS, Model, ModelConfig, positions_of

pytestmark = pytest.mark.slow

SMALL = {"vocab_size": 96, "num_layers": 2, "embed_dim": 32, "mlp_dim": 48, "num_heads": 4, "max_length": 64}


def tiny(name, **changes):
    """The released checkpoint's config in small, its special tokens at the vocabulary's end where they were large."""
    config = CHECKPOINTS[name].config
    ids = ("mask_id", "eos_id", "pad_id", "bos_id", "eot_id")
    ids = {field: getattr(config, field) for field in ids}
    known = sorted({i for i in ids.values() if i is not None and i >= 96})
    small = {field: 95 - known.index(i) if i in known else i for field, i in ids.items()}
    kv_heads = 4 // (config.num_heads // config.num_kv_heads) or 1
    return dataclasses.replace(config, **SMALL, **small, num_kv_heads=kv_heads, **changes)


def random_params(config):
    params = Model(config).init(jax.random.key(3))
    keys = iter(jax.random.split(jax.random.key(4), 32))
    return jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(next(keys), leaf.shape), params)


@pytest.fixture(scope="module", params=["illada-8b-base", "dream-coder-7b-instruct"])
def folder(request, tmp_path_factory):
    config = tiny(request.param)
    path = tmp_path_factory.mktemp(request.param) / "hf"
    write_hf(random_params(config), config, path)
    return path


def test_logits_are_those_of_the_twin(folder):
    loaded = lrd_jax.load(folder)
    model, params = loaded.model, loaded.params
    ids = np.random.default_rng(0).integers(0, 96, (1, 9))
    mask = jnp.ones(ids.shape, bool)
    got = model.logits(params, model.hidden(params, model.embed(params, ids), positions_of(mask), mask))[0]
    twin = TwinModel(folder)
    wanted = twin.logits(twin.table[ids[0]])
    aligned = np.concatenate([got[:1], got[:-1]]) if twin.dream else got
    assert wanted.std() > 1
    np.testing.assert_allclose(aligned, wanted, atol=1e-4)


def test_a_checkpoint_comes_back_bit_for_bit(folder, tmp_path):
    convert(folder, tmp_path / "orbax", verify=True)
    export(tmp_path / "orbax", tmp_path / "back")
    before, after = (load_file(path / "model-00001-of-00001.safetensors") for path in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert (tmp_path / "back" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


ILLADA = {
    "architectures": ["ILLaDAForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "layer_norm_eps": None,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pad_token_id": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 155136,
}


@pytest.mark.parametrize(
    "said",
    [{}, {"model_type": "llama"}, {"rope_scaling": {"rope_type": "default", "factor": 1.0}}, {"mask_token_id": 5}],
)
def test_illada_is_known_by_its_architecture_and_its_mask_by_its_vocabulary(said):
    assert ModelConfig.from_hf(ILLADA | said) == CHECKPOINTS["illada-8b-instruct"].config


@pytest.mark.parametrize(
    "said, words",
    [
        ({"attention_bias": True}, "attention_bias=True"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps=1e-05"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling="),
        ({"rope_theta": None}, "rope_theta is missing"),
        ({"vocab_size": 1000}, "mask_token_id is missing"),
    ],
)
def test_an_illada_of_another_build_is_refused(said, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig.from_hf(ILLADA | said)


@pytest.mark.parametrize("name", ["d3llm-llada", "d3llm-dream", "diffucoder-7b-cpgrpo", "dreamon-7b"])
def test_tuned_checkpoints_have_the_architecture_of_what_they_were_tuned_from(name):
    base = "llada-8b-base" if CHECKPOINTS[name].config.family == "llada" else "dream-7b-base"
    assert CHECKPOINTS[name].config == CHECKPOINTS[base].config


def test_a_field_of_a_sampler_changes_nothing(folder):
    hf = json.loads((folder / "config.json").read_text())
    assert ModelConfig.from_hf(hf | {"expand_token_id": 90}) == ModelConfig.from_hf(hf)


QWEN3_AS_DREAM = {"model_type": "Dream", "architectures": ["DreamModel"], "mask_token_id": 151669, "head_dim": 128}

FALSE_FRIENDS = {
    "DreamReasoner": (QWEN3_AS_DREAM, "Qwen3 under Dream's name"),
    "DreamReasoner, no biases": ({"model_type": "Dream", "attention_bias": False}, "Qwen3 under Dream's name"),
    "LLaDA-MoE": ({"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]}, "mixture of experts in every block"),
    "LLaDA-MoE, experts": ({"model_type": "llada", "num_experts": 64}, "mixture of experts in every block"),
    "LLaDOU": ({"model_type": "llada", "architectures": ["LLaDOUModelLM"]}, "a policy head"),
    "LLaDA2": ({"model_type": "llada2_moe"}, "LLaDA2 has a mixture of experts"),
    "SDAR": ({"model_type": "sdar", "architectures": ["SDARForCausalLM"]}, "SDAR is Qwen3"),
    "SDAR MoE": ({"model_type": "sdar_moe"}, "SDAR's mixture of experts"),
}


@pytest.mark.parametrize("name", FALSE_FRIENDS)
def test_false_friends_are_refused_by_name(name):
    hf, words = FALSE_FRIENDS[name]
    with pytest.raises(ValueError, match="is not supported: .*" + words) as caught:
        ModelConfig.from_hf(hf)
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize(
    "name, tensors, words",
    [
        ("dream-7b-base", ["model.layers.0.self_attn.q_norm.weight"], "Qwen3 under Dream's name"),
        ("llada-8b-base", ["mask_linear.weight", "mask_head.0.q_proj.weight"], "a policy head"),
    ],
)
def test_a_false_friend_is_known_by_its_tensors(tmp_path, name, tensors, words):
    config = tiny(name)
    write_hf(random_params(config), config, tmp_path / "hf")
    file = tmp_path / "hf" / "model-00001-of-00001.safetensors"
    save_file(load_file(file) | {name: np.ones(8, np.float32) for name in tensors}, file)
    with pytest.raises(ConversionError, match=words) as caught:
        convert(tmp_path / "hf", tmp_path / "orbax")
    assert len(caught.value.problems) == 1
