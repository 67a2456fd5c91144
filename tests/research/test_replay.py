"""Replays: the numbers of a forward are those of its logits, and a row that has ended says nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

import lrd_jax
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.research.cells import refinement_lengths
from lrd_jax.research.replay import replay, summary
from lrd_jax.text import answer_lengths

G = 8
PROMPT = np.array([[0, 40, 41, 42], [43, 44, 45, 46]], np.int32)
MASK = np.array([[False, True, True, True], [True] * 4])


@pytest.fixture(scope="module")
def tiny(checkpoint):
    return checkpoint("tiny-llada")


def decoded(tiny, config):
    model, params = tiny
    decode = lrd_jax.make_decode(model, config)
    result = decode(params, PROMPT, MASK)
    return result, replay(decode, params, PROMPT, MASK, result.tokens)


def first_beliefs(tiny):
    """float64 probabilities `[B, G, V]` of the forward in which everything is masked."""
    model, params = tiny
    ids = np.concatenate([PROMPT, np.full((2, G), model.config.mask_id)], axis=1)
    mask = np.concatenate([MASK, np.ones((2, G), bool)], axis=1)
    positions = jnp.maximum(jnp.cumsum(jnp.asarray(mask), axis=1) - 1, 0)
    hidden = model.hidden(params, model.embed(params, jnp.asarray(ids)), positions, jnp.asarray(mask))
    logits = np.array(model.logits(params, hidden[:, -G:]), np.float64)
    logits[..., model.config.mask_id] = -np.inf
    return np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 3])
def test_the_first_forward_is_read_as_its_logits_say(tiny, chunk):
    mix = Mix(r_f=0.6, top_p=0.5)
    config = lrd_jax.DecodeConfig(
        G, commit=LowestEntropy(G // 2), mix=mix, trace=True, logit_chunk=chunk, block_length=G
    )
    result, seen = decoded(tiny, config)
    p = first_beliefs(tiny)
    final = np.take_along_axis(p, np.asarray(result.tokens)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(seen["distance"][:, 0], -np.log(final).mean(-1), rtol=1e-4)
    np.testing.assert_allclose(seen["open_distance"][:, 0], seen["distance"][:, 0], rtol=1e-5)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    np.testing.assert_allclose(seen["alpha"][:, 0], (0.6 * (1 - entropy / np.log(p.shape[-1]))).mean(-1), rtol=1e-4)
    np.testing.assert_allclose(seen["mixed"][:, 0], (p.max(-1) < 0.5).mean(-1))
    assert seen["open"].tolist() == [[8, 4]] * 2


@pytest.mark.slow
def test_the_trace_stands_beside_it_and_a_row_that_ended_says_nothing(tiny):
    config = lrd_jax.DecodeConfig.paper(G, refine=lrd_jax.Refine(tau=0.0, max_steps=3), trace=True)
    result, seen = decoded(tiny, config)
    forwards = np.asarray(result.forwards)
    assert (~np.isnan(seen["distance"])).sum(1).tolist() == forwards.tolist()
    assert np.nansum(seen["refining"], axis=1).tolist() == [3, 3]
    np.testing.assert_array_equal(seen["divergence"][0, : forwards[0]], result.trace.divergence[0, : forwards[0]])
    settled = np.asarray(result.stop_reason) == lrd_jax.StopReason.SETTLED
    last = np.array([row[n - 1] for row, n in zip(seen["stopped"], forwards, strict=True)])
    np.testing.assert_array_equal(last == 1, settled)
    assert seen["stopped"][:, :3].max() == 0  # refinement is not asked


def test_rows_are_weighted_by_their_masked_positions_and_the_ended_left_out():
    one = {name: np.array([[1.0, np.nan], [3.0, 5.0]]) for name in ("distance", "alpha", "divergence", "refining")}
    one |= {"mixed": np.array([[1.0, np.nan], [0.0, 0.5]]), "open": np.array([[2.0, np.nan], [2.0, 4.0]])}
    short = {name: column[:1, :1] for name, column in one.items()}
    told = summary([one, short])
    assert told["rows"] == [3, 1]
    assert told["distance"] == pytest.approx([5 / 3, 5.0], rel=1e-3)
    assert told["mixed_share"] == pytest.approx((2 + 0 + 2 + 2) / 10)
    assert told["switch"][1] == 1.0


def test_infinite_divergences_are_none():
    one = {name: np.array([[np.inf, 1.0]]) for name in ("divergence",)}
    one |= {name: np.ones((1, 2)) for name in ("distance", "alpha", "mixed", "open", "refining")}
    assert summary([one])["divergence"] == [None, 1.0]


def test_effective_tokens_end_at_the_first_end_token():
    assert answer_lengths(np.array([[5, 9, 7, 9], [5, 5, 5, 5], [7, 5, 5, 5]]), (7, 9)).tolist() == [1, 4, 0]


def test_refinements_are_counted_apart():
    refining = np.array([[True, True, False, True, False], [False] * 5, [False, False, True, True, True]])
    assert refinement_lengths(refining) == [2, 1, 3]
