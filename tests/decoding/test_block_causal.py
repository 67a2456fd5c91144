"""Models that attend block by block: the mask, and the exact cache that follows from it, against the slow twin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
from twin_model import TwinModel

import lrd_jax
from lrd_jax import DecodeConfig, DualCache, ExactCache, LowestEntropy, Mix, Reopening, Threshold, make_decode
from lrd_jax.convert import convert, export, write_hf
from lrd_jax.models import CHECKPOINTS, Model, ModelConfig, positions_of

pytestmark = pytest.mark.slow

A, G = 8, 24  # attention block, canvas


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A tiny random checkpoint in Fast-dLLM v2's layout, beliefs as peaked as a trained model's."""
    sizes = {"vocab_size": 64, "num_layers": 2, "embed_dim": 32, "mlp_dim": 48, "num_heads": 4, "num_kv_heads": 2}
    ids = {"mask_id": 63, "eos_id": 62, "pad_id": 62, "bos_id": None, "eot_id": None, "max_length": 128}
    base = CHECKPOINTS["dream-7b-base"].config
    config = dataclasses.replace(base, **sizes, **ids, family="fast-dllm-v2", attention_block=A)
    keys = iter(jax.random.split(jax.random.key(1), 32))
    params = Model(config).init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params)
    folder = tmp_path_factory.mktemp("fast-dllm-v2") / "hf"
    write_hf(params, config, folder)
    found = lrd_jax.load(folder)
    assert found.config == config
    return found, TwinModel(folder), folder


def test_logits_are_those_of_the_twin_padded_or_not(loaded):
    (found, slow, _), ids = loaded, np.random.default_rng(0).integers(0, 62, 19)
    model, params = found.model, found.params
    rows = np.stack([np.r_[np.full(3, 62), ids], np.r_[ids, np.full(3, 62)]])
    mask = jnp.asarray(np.stack([np.arange(22) >= 3, np.arange(22) < 19]))
    got = model.logits(params, model.hidden(params, model.embed(params, rows), positions_of(mask), mask))
    wanted = slow.logits(slow.table[ids])
    for row in (got[0, 3:], got[1, :19]):
        np.testing.assert_allclose(np.concatenate([row[:1], row[:-1]]), wanted, atol=2e-4)
    slow.attention_block = None
    assert np.abs(slow.logits(slow.table[ids]) - wanted).max() > 0.1
    slow.attention_block = A


def test_a_position_sees_nothing_behind_its_block(loaded):
    (found, _, _), ids = loaded, np.random.default_rng(0).integers(0, 62, (1, 20))
    model, params = found.model, found.params
    other = ids.copy()
    other[0, 2 * A :] = 7
    mask = jnp.ones(ids.shape, bool)
    a, b = (model.hidden(params, model.embed(params, x), positions_of(mask), mask) for x in (ids, other))
    np.testing.assert_array_equal(a[:, : 2 * A], b[:, : 2 * A])


def prompts():
    rng = np.random.default_rng(2)
    lengths = (3, 8, 13)
    ids = np.full((3, 13), 62, np.int32)
    for row, n in enumerate(lengths):
        ids[row, 13 - n :] = rng.integers(0, 62, n)
    return jnp.asarray(ids), jnp.arange(13) >= 13 - jnp.array(lengths)[:, None]


@pytest.mark.parametrize("window", [4, 8, 12])
def test_the_exact_cache_decodes_as_the_twin_does(loaded, window):
    found, slow, _ = loaded
    ids, mask = prompts()
    config = DecodeConfig(G, block_length=window, commit=LowestEntropy(threshold=0.5), cache=ExactCache())
    got = make_decode(found.model, config)(found.params, ids, mask)
    for row in range(3):
        wanted = twin.twin_decode(
            slow, ids[row][mask[row]], gen_length=G, block_length=window, commit=twin.lowest_entropy(1, 0.5)
        )
        assert got.forwards[row] == wanted.forwards
        np.testing.assert_array_equal(got.tokens[row], wanted.tokens)


@pytest.mark.parametrize("alignment", ["dream", "llada"])
def test_it_is_exact_with_soft_beliefs_own_lengths_and_given_tokens(loaded, alignment):
    """A canvas whose second block is given whole: what was computed of it before the first was decoded is stale."""
    found, _, _ = loaded
    model = found.model
    if alignment == "llada":
        model = Model(dataclasses.replace(model.config, alignment=CHECKPOINTS["llada-1.5"].config.alignment))
    ids, mask = prompts()
    canvas = np.full((3, G), -1, np.int32)
    canvas[1:, 8:16] = 5
    config = DecodeConfig(G, block_length=8, mix=Mix(), commit=LowestEntropy(threshold=0.5))
    length = jnp.array([24, 24, 16])
    plain, cached = (
        make_decode(model, dataclasses.replace(config, cache=cache))(
            found.params, ids, mask, length=length, canvas=jnp.asarray(canvas)
        )
        for cache in (None, ExactCache())
    )
    np.testing.assert_array_equal(cached.tokens, plain.tokens)
    np.testing.assert_array_equal(cached.forwards, plain.forwards)


@pytest.mark.parametrize("rule", [LowestEntropy(1), Threshold(0.3)])
@pytest.mark.parametrize("window", [8, 24])
def test_it_is_exact_where_positions_are_opened_again(loaded, rule, window):
    """In attention blocks before those that are still open."""
    found, _, _ = loaded
    ids, mask = prompts()
    config = DecodeConfig(G, block_length=window, commit=Reopening(rule, 0.05, 3))
    plain, cached = (
        make_decode(found.model, config.replace(cache=cache))(found.params, ids, mask) for cache in (None, ExactCache())
    )
    assert (
        plain.forwards > make_decode(found.model, config.replace(commit=rule))(found.params, ids, mask).forwards
    ).any()
    np.testing.assert_array_equal(cached.tokens, plain.tokens)
    np.testing.assert_array_equal(cached.forwards, plain.forwards)


def test_a_forward_within_a_block_computes_the_windows_attention_blocks_alone(loaded):
    found, _, _ = loaded
    sizes = []

    class Counting(Model):
        def hidden_and_cache(self, params, embeddings, *rest):
            sizes.append(embeddings.shape[1])
            return super().hidden_and_cache(params, embeddings, *rest)

    config = DecodeConfig(G, block_length=8, cache=ExactCache())
    make_decode(Counting(found.config), config).lower(found.model.abstract_params(), 3, 13).compile()
    assert sorted(set(sizes)) == [16, 24, 37]


def test_caches_and_models_that_do_not_go_together_are_refused(loaded):
    found, _, _ = loaded
    full = Model(dataclasses.replace(found.config, attention_block=None))
    with pytest.raises(ValueError, match="is for models that attend block by block"):
        make_decode(full, DecodeConfig(G, cache=ExactCache()))
    with pytest.raises(ValueError, match="this model attends block by block, 8 positions each; take cache=exact"):
        make_decode(found.model, DecodeConfig(G, block_length=8, cache=DualCache()))
    with pytest.raises(ValueError, match="attention_block=0 must be positive"):
        dataclasses.replace(found.config, attention_block=0)


def test_the_layout_comes_back_bit_for_bit(loaded, tmp_path):
    _, _, folder = loaded
    convert(folder, tmp_path / "orbax", verify=True)
    assert lrd_jax.load(tmp_path / "orbax").config.attention_block == A
    export(tmp_path / "orbax", tmp_path / "back")
    for name in ("model-00001-of-00001.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()


def test_a_released_config_is_known_by_its_architecture():
    hf = {
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        "eos_token_id": 151645,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "pad_token_id": 151645,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    }
    config = ModelConfig.from_hf(hf)
    assert (config.attention_block, config.mask_id, config.family) == (32, 151665, "fast-dllm-v2")
    assert ModelConfig.from_hf(hf | {"bd_size": 8}).attention_block == 8
