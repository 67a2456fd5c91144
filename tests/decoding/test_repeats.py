"""The same call gives the same answer, bit for bit; and so does one that differs only in what nobody may read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import some_always

from lrd_jax import DecodeConfig, DualCache, PrefixCache, make_decode
from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.compiling import compiler_options

BLOCKS = {"block_length": 4, "trace": True}
CASES = {
    "lrd": ("tiny-llada-gqa", DecodeConfig.lrd(12, trace=True)),
    "lrd, dual": ("tiny-llada-gqa", DecodeConfig.lrd(12, cache=DualCache(refresh_every=2), **BLOCKS)),
    "fast, prefix": ("tiny-dream", DecodeConfig.fast(12, cache=PrefixCache(), **BLOCKS)),
}
LENGTHS = np.array([7, 3, 1])  # of the prompts, padded to the first


def prompts(rng, vocab_size):
    """Ids and mask `[3, 7]`; other ids at the padding on every call, the same elsewhere."""
    ids = np.random.default_rng(0).integers(0, 200, (3, 7))
    mask = np.arange(7) >= 7 - LENGTHS[:, None]
    return np.where(mask, ids, rng.integers(0, vocab_size, ids.shape)), mask


def final(decode, params, state):
    """Every array that a row's end leaves of what may be read: tokens, masks, counts, traces, last logits."""
    state = decode.advance(params, state, 1_000)
    return jax.device_get((decode.result(state), state.masked, state.soft, state.belief, state.previous, state.parts))


def assert_same_bits(got, want):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        assert a.tobytes() == b.tobytes(), jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.parametrize("case", some_always(CASES, 2))
def test_the_same_call_gives_the_same_bits(checkpoint, case):
    """Run after run, and compiled anew."""
    name, config = CASES[case]
    model, params = checkpoint(name)
    ids, mask = prompts(np.random.default_rng(1), model.config.vocab_size)
    runs = []
    for _ in range(2):
        decode = make_decode(model, config)
        runs += [final(decode, params, decode.start(params, ids, mask)) for _ in range(3)]
        jax.clear_caches()
    for run in runs[1:]:
        assert_same_bits(run, runs[0])


@pytest.mark.parametrize("case", some_always(CASES, 2))
def test_what_nobody_may_read_changes_no_bit(checkpoint, case):
    """Ids under the padding and under the mask, the cache before the first refresh, a belief before the first one."""
    name, config = CASES[case]
    model, params = checkpoint(name)
    decode = make_decode(model, config)
    canvas = np.full((3, 12), -1)
    canvas[0, [2, 6]] = canvas[2, :4] = 5  # given, so that soft embeddings stand where none may be read

    def started(seed):
        ids, mask = prompts(np.random.default_rng(seed), model.config.vocab_size)
        return decode.start(params, ids, mask, canvas=canvas)

    want = final(decode, params, started(1))
    state = started(2)
    rng = np.random.default_rng(3)
    garbage = jnp.asarray(rng.integers(0, model.config.vocab_size, state.tokens.shape), jnp.int32)
    masked = take_window(state.masked, state.block * decode.config.window, decode.config.window)
    state = state.replace(
        tokens=jnp.where(state.masked, garbage, state.tokens),
        cache=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.cache),
        previous=None if state.previous is None else jnp.full_like(state.previous, jnp.nan),
        soft=None if state.soft is None else jnp.where(masked[..., None], state.soft, jnp.nan),
    )
    assert_same_bits(final(decode, params, state), want)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cache"), [("tiny-dream", PrefixCache()), ("tiny-llada-gqa", DualCache())])
def test_keys_and_values_that_a_region_must_not_see_change_no_bit(checkpoint, name, cache):
    """Those of the padding, and the region's own as the refresh saw them."""
    model, params = checkpoint(name)
    decode = make_decode(model, DecodeConfig.lrd(12, cache=cache, **BLOCKS))
    ids, mask = prompts(np.random.default_rng(1), model.config.vocab_size)
    want = final(decode, params, decode.start(params, ids, mask))
    state = decode.advance(params, decode.start(params, ids, mask), 1)  # the refresh
    place, width = np.arange(7 + 12), 12 if isinstance(cache, PrefixCache) else 4
    unseen = np.pad(~mask, ((0, 0), (0, 12))) | ((place >= 7) & (place < 7 + width))
    assert not state.block.any()
    state = state.replace(cache=jax.tree.map(lambda x: jnp.where(unseen[None, :, :, None, None], 37.0, x), state.cache))
    assert_same_bits(final(decode, params, state), want)


def test_rows_of_products_are_summed_right():
    """jax#39103: jaxlib 0.10.2 computes rows from the 32,768th on wrong, where its library is given reductions."""
    x = np.arange(3 * 32_769, dtype=np.float32).reshape(-1, 3) / 1000
    matrix = np.eye(3, dtype=np.float32)
    squares = jax.jit(
        lambda x: jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(x), compiler_options=compiler_options("cpu")
    )
    np.testing.assert_allclose(squares(x), np.sum(x.astype(float) ** 2, axis=1), rtol=1e-5)
