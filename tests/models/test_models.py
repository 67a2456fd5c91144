"""The network: every forward golden, its parts against NumPy, and the contracts of `Model` and `ModelConfig`."""

import dataclasses
import json

import chex
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrd_jax.models import CHECKPOINTS, LogitAlignment, Model, ModelConfig, positions_of
from lrd_jax.models import attention as attention_module
from lrd_jax.models.transformer import rms_norm

TOLERANCE = 2e-4  # float32 logits of standard deviation 3.4, as the goldens suggest
TINY = ["tiny-llada", "tiny-llada-gqa", "tiny-llada-bf16", "tiny-dream"]

FORWARDS = [
    (name, array.removesuffix(".logits"))
    for name in TINY
    for array in goldens.arrays(f"{name}.forward")
    if array.endswith(".logits") and array != "bf16.logits"
]


@jax.jit(static_argnames="model")
def forward(model, params, embeddings, mask):
    return model.logits(params, model.hidden(params, embeddings, positions_of(mask), mask))


def padded_forward(model, params, embeddings, mask):
    """`forward` at one shape for all goldens of a checkpoint: rows and right padding up to [3, 64] are added."""
    rows, length = mask.shape
    grow = ((0, 3 - rows), (0, 64 - length))
    out = forward(model, params, jnp.pad(embeddings, (*grow, (0, 0))), np.pad(mask, grow))
    return np.asarray(out)[:rows, :length]


def embeddings_of(model, params, stored, case):
    if case == "embeds":
        return jnp.asarray(stored["embeds.inputs_embeds"])
    if case == "soft":
        return jnp.asarray(stored["soft.probs"]) @ params["table"]
    return model.embed(params, stored[f"{case}.input_ids"])


@pytest.mark.parametrize("name, case", FORWARDS)
@pytest.mark.usefixtures("strict_dtypes")
def test_logits(checkpoint, name, case):
    model, params = checkpoint(name, "float32")
    stored = goldens.arrays(f"{name}.forward")
    embeddings = embeddings_of(model, params, stored, case)
    mask = stored.get(f"{case}.attention_mask", np.ones(embeddings.shape[:2])).astype(bool)
    got = padded_forward(model, params, embeddings, mask)
    np.testing.assert_allclose(got[mask], stored[f"{case}.logits"][mask], atol=TOLERANCE)


def test_logits_of_a_full_pass_of_the_cache_goldens(checkpoint):
    for name in ("tiny-llada", "tiny-llada-gqa", "tiny-dream"):
        model, params = checkpoint(name, "float32")
        stored = goldens.arrays(f"{name}.forward")
        ids = stored["cache.input_ids"]
        got = padded_forward(model, params, model.embed(params, ids), np.ones(ids.shape, bool))
        np.testing.assert_allclose(got, stored["cache.full_logits"], atol=TOLERANCE)


def test_logits_in_bfloat16(checkpoint):
    model, params = checkpoint("tiny-llada-bf16")
    assert params["table"].dtype == jnp.bfloat16
    stored = goldens.arrays("tiny-llada-bf16.forward")
    ids = stored["bf16.input_ids"]
    got = forward(model, params, model.embed(params, ids), np.ones(ids.shape, bool))
    assert got.dtype == jnp.float32
    off = np.abs(got - stored["bf16.logits"])
    assert off.max() < 0.5
    assert off.mean() < 0.06


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-llada-gqa", "tiny-dream"])
def test_hidden_states_layer_by_layer(checkpoint, name):
    model, params = checkpoint(name, "float32")
    stored = goldens.arrays(f"{name}.forward")
    ids = stored["hidden.input_ids"]
    mask = jnp.ones(ids.shape, bool)

    @jax.jit
    def run(params):
        x = model.embed(params, ids)
        return model.bind(params).blocks_out(x, positions_of(mask), mask), model.hidden(
            params, x, positions_of(mask), mask
        )

    (last, inputs), final = run(params)
    for layer, got in enumerate((*inputs, final)):
        np.testing.assert_allclose(got, stored[f"hidden.{layer}"], atol=TOLERANCE)
    np.testing.assert_allclose(last, stored["hidden.last_block_out"], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["tiny-llada-gqa", "tiny-dream"])
def test_left_padding_changes_nothing(checkpoint, name):
    model, params = checkpoint(name, "float32")
    ids, length = np.arange(7), 64
    left = np.r_[np.full(length - 7, model.config.pad_id), ids]
    right = np.r_[ids, np.full(length - 7, model.config.pad_id)]
    place = np.arange(length)
    got = forward(
        model,
        params,
        model.embed(params, np.stack([left, right, right])),
        np.stack([place >= length - 7, place < 7, place < 7]),
    )
    np.testing.assert_allclose(got[0, -7:], got[1, :7], atol=1e-5)


def test_positions_count_real_tokens_only():
    mask = jnp.array([[False, False, True, True], [True, True, True, True]])
    assert positions_of(mask)[:, 2:].tolist() == [[0, 1], [2, 3]]
    assert positions_of(mask).dtype == jnp.int32


def test_rope_turns_halves_by_the_position():
    x = np.random.default_rng(0).normal(size=(1, 5, 2, 8)).astype(np.float32)
    positions = np.array([[3, 0, 7, 1, 100]], np.int32)
    cos, sin = attention_module.rope_tables(positions, 8, 10000.0)
    got = attention_module.rotate(x, cos, sin, full_precision=True)
    turns = positions[..., None] * 10000.0 ** (-np.arange(4) / 4)
    want = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * turns)[:, :, None]
    np.testing.assert_allclose(got, np.concatenate([want.real, want.imag], axis=-1), atol=1e-5)


def test_rope_casts_its_tables_where_the_family_does():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 1, 8)), jnp.bfloat16)
    cos, sin = attention_module.rope_tables(jnp.arange(4)[None] + 50, 8, 10000.0)
    cast = attention_module.rotate(x, cos, sin, full_precision=False)
    full = attention_module.rotate(x, cos, sin, full_precision=True)
    assert cast.dtype == full.dtype == jnp.bfloat16
    left, right = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-right, left], axis=-1)
    np.testing.assert_array_equal(cast, x * cos.astype(jnp.bfloat16) + turned * sin.astype(jnp.bfloat16))
    np.testing.assert_array_equal(full, (x.astype(jnp.float32) * cos + turned * sin).astype(jnp.bfloat16))


def test_rms_norm():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    scale = np.linspace(0.5, 2, 8, dtype=np.float32)
    want = x / np.sqrt(np.mean(np.square(x, dtype=float), axis=-1, keepdims=True) + 0.1) * scale
    np.testing.assert_allclose(rms_norm(x, scale, 0.1), want, rtol=1e-6)


def _attention_inputs(heads, kv_heads):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 6, n, 8)).astype(np.float32) for n in (heads, kv_heads, kv_heads))
    mask = np.arange(6) >= np.array([[0], [2]])
    return q, k, v, mask


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (4, 1)])
def test_attention_against_numpy(heads, kv_heads):
    q, k, v, mask = _attention_inputs(heads, kv_heads)
    want = np.empty_like(q)
    for b in range(2):
        for n in range(heads):
            kv = n // (heads // kv_heads)
            weights = np.exp(q[b, :, n] @ k[b, mask[b], kv].T / np.sqrt(8))
            want[b, :, n] = weights / weights.sum(axis=-1, keepdims=True) @ v[b, mask[b], kv]
    np.testing.assert_allclose(attention_module.attention(q, k, v, mask[:, None]), want, atol=1e-5)


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2)])
def test_fused_attention_equals_einsum_attention(heads, kv_heads):
    q, k, v, mask = _attention_inputs(heads, kv_heads)
    inputs = [jnp.asarray(x) for x in (q, k, v, mask[:, None])]
    fused, einsum = attention_module._fused_attention(*inputs), attention_module._einsum_attention(*inputs)
    np.testing.assert_allclose(fused, einsum, atol=1e-5)


def hf_config(name):
    return json.loads((goldens.GOLDEN / name / "config.json").read_text())


@pytest.mark.parametrize("at_once", [1, 3])
def test_attention_a_few_heads_at_a_time_is_that_of_all(at_once, monkeypatch):
    q, k, v, mask = _attention_inputs(4, 2)
    inputs = [jnp.asarray(x) for x in (q, k, v, mask[:, None])]
    whole = attention_module._einsum_attention(*inputs)
    queries, keys, groups = inputs[0].shape[1], inputs[1].shape[1], 2
    monkeypatch.setattr(attention_module.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(attention_module, "SCORE_BYTES", 4 * at_once * groups * queries * keys)
    np.testing.assert_allclose(attention_module._einsum_attention(*inputs), whole, atol=1e-6)


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("tiny-llada", "activation_type", "swiglu"),
        ("tiny-llada", "alibi", True),
        ("tiny-llada", "attention_layer_norm", True),
        ("tiny-llada", "bias_for_layer_norm", True),
        ("tiny-llada", "block_group_size", 2),
        ("tiny-llada", "block_type", "sequential"),
        ("tiny-llada", "include_bias", True),
        ("tiny-llada", "input_emb_norm", True),
        ("tiny-llada", "layer_norm_type", "low_precision"),
        ("tiny-llada", "layer_norm_with_affine", False),
        ("tiny-llada", "rope", False),
        ("tiny-dream", "hidden_act", "gelu"),
        ("tiny-dream", "rope_scaling", {"type": "yarn"}),
        ("tiny-dream", "use_mrope", True),
        ("tiny-dream", "use_sliding_window", True),
    ],
)
def test_a_config_that_asks_for_what_is_not_built_is_refused_by_name(name, field, value):
    with pytest.raises(ValueError, match=rf"{field}={value!r}".replace("{", r"\{").replace("}", r"\}")):
        ModelConfig.from_hf(hf_config(name) | {field: value})


def test_all_problems_of_a_config_are_named_at_once():
    broken = hf_config("tiny-llada") | {"alibi": True, "rope": False}
    del broken["n_layers"]
    with pytest.raises(ValueError) as error:
        ModelConfig.from_hf(broken)
    assert all(word in str(error.value) for word in ("alibi=True", "rope=False", "n_layers is missing"))


def test_an_unknown_model_type_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'llama'.*'llada', 'Dream'"):
        ModelConfig.from_hf({"model_type": "llama"})


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_heads": 3}, "embed_dim=64 must be num_heads=3 times"),
        ({"num_kv_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
        ({"mask_id": 384}, "mask_id=384 is outside the vocabulary of 384"),
        ({"num_layers": 0}, "num_layers=0 must be positive"),
    ],
)
def test_impossible_sizes_are_refused(checkpoint, change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(checkpoint("tiny-llada")[0].config, **change)


def test_config_round_trips_through_json(checkpoint):
    for name in TINY:
        config = checkpoint(name)[0].config
        assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


# The fields of the released config files that bear on the network.
LLADA_8B = {
    "model_type": "llada",
    "activation_type": "silu",
    "alibi": False,
    "block_type": "llama",
    "d_model": 4096,
    "embedding_size": 126464,
    "eos_token_id": 126081,
    "include_bias": False,
    "include_qkv_bias": False,
    "layer_norm_type": "rms",
    "mask_token_id": 126336,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 12288,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "pad_token_id": 126081,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "vocab_size": 126464,
    "weight_tying": False,
}
DREAM_7B = {
    "model_type": "Dream",
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "mask_token_id": 151666,
    "max_position_embeddings": 131072,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "pad_token_id": 151643,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 152064,
}


@pytest.mark.parametrize("name", [name for name, preset in CHECKPOINTS.items() if preset.config.family != "illada"])
def test_presets_are_what_the_released_configs_say(name):
    config = CHECKPOINTS[name].config
    released = ModelConfig.from_hf(LLADA_8B if config.family == "llada" else DREAM_7B)
    assert dataclasses.replace(released, bos_id=config.bos_id) == config  # Dream's file names end-of-text as bos


@pytest.mark.parametrize("name, count", [("llada-8b-base", 8_015_581_184), ("dream-7b-base", 7_615_616_512)])
def test_presets_have_the_released_number_of_parameters(name, count):
    leaves = jax.tree.leaves(Model(CHECKPOINTS[name].config).abstract_params(jnp.bfloat16))
    assert sum(leaf.size for leaf in leaves) == count
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-dream"])
def test_every_parameter_names_its_axes(checkpoint, name):
    model, params = checkpoint(name)
    axes = model.param_axes()
    ranks = jax.tree.map(lambda names: len(names), axes, is_leaf=lambda x: isinstance(x, tuple))
    assert ranks == jax.tree.map(lambda p: p.ndim, params)
    sizes = {
        "vocab": model.config.vocab_size,
        "embed": model.config.embed_dim,
        "norm": model.config.embed_dim,
        "mlp": model.config.mlp_dim,
        "heads": model.config.num_heads,
        "kv_heads": model.config.num_kv_heads,
        "head_dim": model.config.head_dim,
        "layers": model.config.num_layers,
    }
    flat = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
    assert [tuple(sizes[n] for n in names) for names in flat] == [p.shape for p in jax.tree.leaves(params)]


def test_init_has_the_structure_of_a_loaded_checkpoint(checkpoint):
    for name in ("tiny-llada", "tiny-dream"):
        model, params = checkpoint(name)
        assert jax.tree.map(jnp.shape, model.abstract_params()) == jax.tree.map(jnp.shape, params)


def test_parameters_are_arguments_and_never_constants(checkpoint):
    model, params = checkpoint("tiny-llada")
    x, mask = jnp.zeros((1, 4, 64)), jnp.ones((1, 4), bool)
    run = jax.make_jaxpr(
        lambda params, x, mask: model.logits(params, model.hidden(params, x, positions_of(mask), mask))
    )
    assert sum(np.size(constant) for constant in run(params, x, mask).consts) == 0


def test_models_of_equal_config_share_a_compile(checkpoint):
    model, params = checkpoint("tiny-llada")
    embed = jax.jit(chex.assert_max_traces(Model.embed, n=1), static_argnums=0)
    for equal in (model, Model(dataclasses.replace(model.config))):
        embed(equal, params, jnp.zeros((1, 4), int))
    with pytest.raises(AssertionError, match="traced > 1 times"):
        embed(Model(dataclasses.replace(model.config, scale_logits=True)), params, jnp.zeros((1, 4), int))


def test_scale_logits_divides_by_the_root_of_the_width(checkpoint):
    model, params = checkpoint("tiny-llada")
    scaled = Model(dataclasses.replace(model.config, scale_logits=True))
    hidden = jnp.linspace(-1, 1, 128).reshape(1, 2, 64)
    np.testing.assert_allclose(scaled.logits(params, hidden), model.logits(params, hidden) / 8, rtol=1e-6)


def test_tied_head_reads_the_embedding_table(checkpoint):
    model, params = checkpoint("tiny-llada")
    tied = Model(dataclasses.replace(model.config, tied_head=True))
    assert "head" not in tied.abstract_params()
    hidden = jnp.linspace(-1, 1, 128).reshape(1, 2, 64)
    without_head = {name: leaf for name, leaf in params.items() if name != "head"}
    np.testing.assert_allclose(tied.logits(without_head, hidden), hidden @ params["table"].T, rtol=1e-5, atol=1e-5)


def test_padding_rows_of_the_vocabulary_are_part_of_the_table():
    padded = Model(ModelConfig.from_hf(hf_config("tiny-llada") | {"vocab_size": 383, "embedding_size": 448}))
    shapes = jax.tree.map(jnp.shape, padded.abstract_params())
    assert (shapes["table"], shapes["head"]) == ((448, 64), (64, 448))


def test_alignment_belongs_to_the_family(checkpoint):
    assert checkpoint("tiny-llada")[0].config.alignment is LogitAlignment.SAME_POSITION
    assert checkpoint("tiny-dream")[0].config.alignment is LogitAlignment.SHIFTED
