"""Fast ways to read a window beside slow ones: chunks of the vocabulary, the 64 largest, chunks of positions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrd_jax import DecodeConfig, Draw, LowestEntropy, Margin, Mix, Refine, Stop, make_decode
from lrd_jax.decoding.reading import by_chunks, chunk_of, read_forward, window_logits
from lrd_jax.decoding.vocab import belief
from lrd_jax.decoding.vocab.largest import LARGEST, best_by_chunks, best_of_all, largest
from lrd_jax.decoding.vocab.nucleus import (
    Nucleus,
    Within,
    floor_by_digits,
    floor_by_narrowing,
    mean_of_largest,
    mean_of_nucleus,
)
from lrd_jax.models import CHECKPOINTS, Model
from lrd_jax.models.maximum import maximum

pytestmark = pytest.mark.slow  # a compile a row; the decodes read all of it too

SIZES = [8193, 8320, 9000]  # a last chunk of one token, whole chunks, a broken one

BEST = best_by_chunks, best_of_all


def random_logits(kind, size, seed, rows=6):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, size)) * rng.choice([0.3, 3.0, 9.0], (rows, 1))
    if kind == "ties":
        logits = np.round(logits)
    if kind == "impossible":
        logits[rng.random(logits.shape) < 0.98] = -np.inf
        logits[0, 1:] = -np.inf
    if kind == "nan":
        logits[1, [7, size - 1]] = np.nan
        logits[2, size - 1] = np.nan
    return jnp.asarray(logits, jnp.float32)


@pytest.mark.parametrize("kind", ["plain", "ties", "impossible", "nan"])
@pytest.mark.parametrize("size", [1, 40, 128, 129, *SIZES])
def test_the_best_by_chunks(kind, size):
    for seed in range(3):
        logits = random_logits(kind, max(size, 8), seed)[:, :size]
        (most, got), (wanted, want) = (best(logits) for best in BEST)
        healthy = ~np.isnan(logits).any(axis=-1)
        np.testing.assert_array_equal(got[healthy], want[healthy])
        np.testing.assert_array_equal(most[healthy], wanted[healthy])
        assert np.all((got >= 0) & (got < size))


def test_a_gradient_through_the_best_by_chunks_is_that_of_all():
    logits = random_logits("plain", 300, 0)
    got, want = (jax.grad(lambda x, best=best: jnp.sum(best(x)[0] ** 2))(logits) for best in BEST)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_maximum(dtype):
    x = jnp.asarray([[1, 3, -2], [-np.inf, -5, -np.inf], [-np.inf] * 3, [2, np.inf, 7]], dtype)
    np.testing.assert_array_equal(np.asarray(maximum(x), np.float32), [3, -5, -np.inf, np.inf])
    assert maximum(jnp.zeros((2, 0, 4), dtype)).shape == (2, 0)
    assert maximum(jnp.zeros((2, 0), dtype)).tolist() == [-np.inf] * 2


@pytest.mark.parametrize("kind", ["plain", "ties", "impossible"])
@pytest.mark.parametrize("size", SIZES)
def test_the_largest_are_the_first_of_a_sort(kind, size):
    for seed in range(3):
        logits = random_logits(kind, size, seed)
        values, ids = largest(logits)
        np.testing.assert_array_equal(values, -np.sort(-np.asarray(logits))[:, :LARGEST])
        for row in np.asarray(ids):
            assert len(set(row.tolist())) == LARGEST
        np.testing.assert_array_equal(
            np.take_along_axis(np.pad(logits, ((0, 0), (0, 128)), constant_values=-np.inf), np.asarray(ids), -1), values
        )


@jax.jit
def both_means(logits, table, top_p):
    log_z = jax.nn.logsumexp(logits, axis=-1)
    p = jnp.exp(logits - log_z[..., None])
    floor = floor_by_digits(p, top_p, digit=1)
    size = jnp.sum((p >= floor[..., None]) & (p > 0), axis=-1)
    some, _, holds = mean_of_largest(logits, log_z, table, Nucleus(top_p))
    return (some, holds), mean_of_nucleus(p, floor, table)[0], size


@pytest.mark.parametrize("kind", ["plain", "ties", "impossible", "nan"])
@pytest.mark.parametrize("size", SIZES)
def test_a_nucleus_within_the_largest_has_the_same_mean(kind, size):
    seen = set()
    for seed in range(3):
        logits = random_logits(kind, size, seed)
        table = jax.random.normal(jax.random.key(seed), (size, 5))
        for top_p in (0.0, 0.3, 0.9, 1.0):
            (mean, holds), want, count = both_means(logits, table, top_p)
            holds = np.asarray(holds)
            if top_p == 0:
                continue  # nothing is mixed
            assert np.all(np.asarray(count)[holds] < LARGEST)
            np.testing.assert_allclose(mean[holds], want[holds], rtol=1e-5, atol=1e-6)
            assert np.all(np.isfinite(mean))
            seen |= set(holds.tolist())
    assert seen == {True, False}


def test_tokens_within_a_mass_are_always_among_the_largest():
    logits = random_logits("plain", 8320, 0)
    table = jax.random.normal(jax.random.key(0), (8320, 5))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    p = jnp.exp(logits - log_z[..., None])
    tokens = Within(jnp.clip(2 * jnp.max(p, axis=-1), 0.2, 0.9), 50)
    mean, mass, holds = mean_of_largest(logits, log_z, table, tokens)
    want, total = mean_of_nucleus(p, tokens.floor(p), table)
    assert np.all(holds)
    np.testing.assert_allclose(mass, total, rtol=1e-5)
    np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-5)


@jax.jit
def all_floors(logits, top_p):
    p = jax.nn.softmax(logits, axis=-1)
    slow, fast, by_threes = (
        floor_by_digits(p, top_p, digit=1),
        floor_by_narrowing(p, top_p),
        floor_by_digits(p, top_p, digit=3),
    )
    return p, slow, fast, by_threes


@pytest.mark.parametrize("kind", ["plain", "ties", "impossible", "nan"])
@pytest.mark.parametrize("size", SIZES)
def test_every_way_to_a_floor_gives_the_same_nucleus(kind, size):
    for seed in range(4):
        for top_p in (0.0, 0.2, 0.9, 0.99, 1.0):
            p, slow, fast, by_threes = all_floors(random_logits(kind, size, seed), jnp.float32(top_p))
            np.testing.assert_array_equal(by_threes, slow)
            p = np.asarray(p, np.float64)
            want, got = p >= np.asarray(slow)[:, None], p >= np.asarray(fast)[:, None]
            for row in np.flatnonzero((want != got).any(axis=-1)):
                # In float32 the mass of one of the two is top_p; it is one token, or those that tie with it, apart.
                values = p[row][want[row] != got[row]]
                assert len(set(values.tolist())) == 1
                masses = [p[row][chosen[row]].sum() for chosen in (want, got)]
                assert min(abs(mass - top_p) for mass in masses) < 1e-5


def test_a_tie_across_the_64th_is_not_held():
    """80 tokens share the mass: all of them are the nucleus, and the 64 largest cannot tell."""
    logits = jnp.full((1, 9000), -jnp.inf).at[0, 100:180].set(2.0)
    table = jnp.ones((9000, 2))
    (_, holds), _, count = both_means(logits, table, 0.5)
    assert (holds.tolist(), count.tolist()) == ([False], [80])
    (_, holds), _, count = both_means(logits.at[0, 163:].set(-jnp.inf), table, 0.5)
    assert (holds.tolist(), count.tolist()) == ([True], [63])


@pytest.mark.parametrize("width", [1, 5, 6, 7])
@pytest.mark.parametrize("chunk", [1, 3, 6, 9])
def test_chunks_of_positions_are_put_together(width, chunk):
    x = jnp.arange(2.0 * width * 3).reshape(2, width, 3)
    got = by_chunks(lambda x, y: {"sum": jnp.sum(x, axis=-1), "all": x + 1, "none": y}, chunk, (x, None))
    np.testing.assert_array_equal(got["sum"], x.sum(axis=-1))
    np.testing.assert_array_equal(got["all"], x + 1)
    assert got["none"] is None


W = 70


@pytest.fixture(scope="module")
def large():
    """A model of a vocabulary too large to look at whole, and hidden states of two forwards of three rows."""
    config = dataclasses.replace(
        CHECKPOINTS["llada-8b-base"].config,
        vocab_size=9000,
        embed_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        mlp_dim=8,
        mask_id=8999,
        eos_id=0,
        pad_id=0,
        bos_id=None,
        eot_id=None,
    )
    model = Model(config)
    hidden = jax.random.normal(jax.random.key(1), (2, 3, W, 1, 16))
    sharpness = jnp.asarray([200.0, 60.0, 5.0])[:, None, None, None]  # nuclei of a few, of dozens, of thousands
    return model, model.init(jax.random.key(0)), hidden * sharpness


def config_of(chunk=None, **changes):
    return DecodeConfig(W, mix=Mix(0.5, 0.9), refine=Refine(), commit=Margin(), logit_chunk=chunk, **changes)


def read(large, config, rows=slice(None)):
    model, params, (before, hidden) = large
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    return read_jitted(model, params, before[rows], hidden[rows], keys[rows], config)


@functools.partial(jax.jit, static_argnums=0)
def read_jitted(model, params, before, hidden, keys, config):
    logits = window_logits(model, params, config, before)
    kept = logits if chunk_of(config, len(hidden), model.config.vocab_size) == W else before
    wanted = jnp.ones(hidden.shape[:2], bool)
    return read_forward(model, params, config, hidden, kept, belief.read(logits).log_z, wanted, keys)


def test_a_window_reads_as_numpy_reads_it(large):
    model, params, hidden = large
    reading, kept = read(large, config_of())
    logits = [np.asarray(model.logits(params, h[:, :, 0]), np.float64) for h in hidden]
    for x in logits:
        x[..., 8999] = -np.inf
    p, q = (np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True)) for x in logits[::-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.sum(np.where(p > 0, p * np.log(p), 0), axis=-1)
        kl = np.sum(np.where(p > 0, p * np.log(p / q), 0), axis=-1)
    np.testing.assert_array_equal(reading.belief.token, np.argmax(logits[1], axis=-1))
    np.testing.assert_array_equal(kept, logits[1].astype(np.float32))
    np.testing.assert_allclose(reading.belief.entropy, entropy, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(reading.kl, kl, rtol=1e-3, atol=1e-3)
    order = np.argsort(-p, axis=-1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=-1)
    inside = np.cumsum(ranked, axis=-1) - ranked < 0.9
    weights = np.zeros_like(p)
    np.put_along_axis(weights, order, np.where(inside, ranked, 0.0), axis=-1)
    weights /= weights.sum(axis=-1, keepdims=True)
    assert inside.sum(axis=-1).min() < 10 and inside.sum(axis=-1).max() > 1000
    np.testing.assert_allclose(reading.mixture.mean, weights @ np.asarray(params["table"], np.float64), atol=2e-5)


@pytest.mark.parametrize("chunk", [16, 69])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_window_read_in_chunks_is_the_window_read_whole(large, chunk, temperature):
    whole, _ = read(large, config_of(draw=Draw(temperature)))
    parts, kept = read(large, config_of(chunk, draw=Draw(temperature)))
    assert kept.shape == (3, W, 1, 16)
    np.testing.assert_array_equal(parts.proposal.token, whole.proposal.token)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), parts, whole)


def test_a_row_reads_alone_as_beside_a_row_of_flat_beliefs(large):
    together, _ = read(large, config_of())
    for i in range(3):
        alone, _ = read(large, config_of(), slice(i, i + 1))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[0], b[i]), alone, together)


def test_large_windows_are_read_in_chunks_by_default():
    config = DecodeConfig(1024)
    assert chunk_of(config, 8, 126464) == 16
    assert chunk_of(config, 1, 4096) == 1024
    assert chunk_of(config.replace(block_length=32), 8, 126464) == 32
    assert chunk_of(config, 4096, 126464) == 1


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-dream"])
def test_decoding_in_chunks_gives_the_same_tokens(checkpoint, name):
    model, params = checkpoint(name)
    prompt = jnp.asarray([[5, 9, 3, 2], [1, 4, 4, 8]])
    config = DecodeConfig(
        12,
        block_length=6,
        mix=Mix(0.4, 0.8),
        refine=Refine(0.01, 3),
        commit=LowestEntropy(),
        stop=Stop(1e-3),
        trace=True,
    )
    want = make_decode(model, config)(params, prompt)
    got = make_decode(model, config.replace(logit_chunk=4))(params, prompt)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.forwards, want.forwards)
    np.testing.assert_allclose(got.trace.divergence, want.trace.divergence, rtol=1e-3, atol=1e-5)
