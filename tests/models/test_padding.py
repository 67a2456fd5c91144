"""Parameters longer than their model: where the zeros stand, and that no decode sees them."""

import dataclasses

import jax
import numpy as np
import pytest
from quick import some_quick

from lrd_jax import DecodeConfig, DualCache, Threshold
from lrd_jax.checkpoint import load
from lrd_jax.convert.writer import write_hf
from lrd_jax.decoding.loop import make_decode
from lrd_jax.models import Model
from lrd_jax.models.padding import fit, moved, padded_size
from lrd_jax.sharding import make_mesh, shard

pytestmark = pytest.mark.slow

CONFIGS = {
    "lrd": DecodeConfig.lrd(8, block_length=4),
    "paper": DecodeConfig.paper(8),
    "dual": DecodeConfig.lrd(8, block_length=4, cache=DualCache(3)),
    "threshold": DecodeConfig(8, block_length=4, commit=Threshold(0.1)),
}
# of the tiny checkpoints: a vocabulary that 4 does not divide, and 6 heads in 2 groups, which 4 devices take as 8
SIZES = {"vocab": {"vocab_size": 383}, "heads": {"num_heads": 6, "num_kv_heads": 2, "embed_dim": 96}}


@pytest.mark.parametrize(
    ("size", "groups", "parts", "padded"),
    [(145, 1, 4, 148), (148, 1, 4, 148), (28, 4, 8, 32), (28, 4, 16, 32), (6, 2, 4, 8)],
)
def test_the_least_length_that_parts_divide(size, groups, parts, padded):
    assert padded_size(size, groups, parts) == padded


def test_each_group_is_padded_at_its_end():
    x = np.arange(12).reshape(6, 2)
    longer = fit(x, 0, 8, 2)
    np.testing.assert_array_equal(longer[:, 0], [0, 2, 4, 0, 6, 8, 10, 0])
    np.testing.assert_array_equal(fit(longer, 0, 6, 2), x)
    assert list(moved(1, 5, 6, 8, 2)) == [(1, 3, 1), (3, 5, 4)]


def made(checkpoint, what, family):
    """A model of awkward sizes and random parameters."""
    config = dataclasses.replace(checkpoint(f"tiny-{family}")[0].config, **SIZES[what])
    model = Model(config)
    params = model.init(jax.random.key(1))
    return model, jax.tree.map(lambda leaf: leaf * (1 if leaf.ndim < 3 else 6), params)


def prompts():
    rng = np.random.default_rng(0)
    return rng.integers(5, 300, (4, 6), dtype=np.int32)


@pytest.mark.parametrize("family", some_quick(["llada", "dream"], 1))
@pytest.mark.parametrize("what", some_quick(SIZES, 1))
@pytest.mark.parametrize("name", some_quick(CONFIGS, 1))
def test_tokens_are_those_of_one_device(checkpoint, name, what, family, tmp_path):
    model, params = made(checkpoint, what, family)
    write_hf(params, model.config, tmp_path / "hf")
    mesh = make_mesh(data=2, tensor=4)
    placed = shard(model, params, mesh)
    loaded = load(tmp_path / "hf", mesh=mesh)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, placed)
    longer = placed["table"].shape[0] - model.config.vocab_size, placed["blocks"]["q"].shape[2] - model.config.num_heads
    assert longer == {"vocab": (1, 0), "heads": (0, 2)}[what]
    decode = make_decode(model, CONFIGS[name])
    one, many = decode(params, prompts()), decode(placed, prompts())
    np.testing.assert_array_equal(many.tokens, one.tokens)
    np.testing.assert_array_equal(many.forwards, one.forwards)


def test_padding_is_of_the_mesh_alone(checkpoint):
    model, params = made(checkpoint, "vocab", "llada")
    placed = shard(model, params, make_mesh(tensor=4))
    unplaced = jax.tree.map(np.asarray, placed)
    with pytest.raises(ValueError, match=r"head must have shape \[64, 383\], got \(64, 384\)"):
        make_decode(model, CONFIGS["lrd"])(unplaced, prompts())
