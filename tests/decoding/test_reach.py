"""A forward that is read over the whole canvas: what a part sees there is what the slow twin's logits say."""

import goldens
import jax
import numpy as np
import pytest
import twin
from twin_model import TwinModel, softmax

from lrd_jax import DAEDAL, DecodeConfig, DualCache, LowestEntropy, Mix, PrefixCache, Refine, Stop, make_decode
from lrd_jax.decoding import reading
from lrd_jax.decoding.setting import setting

LENGTHS = (5, 3)  # of the prompts
LRD = {"mix": Mix(0.4, 0.8), "refine": Refine(0.2, 3), "stop": Stop(0.05)}
TWIN = {"mix": (0.4, 0.8), "refine": (0.2, 3, "block"), "stop": (0.05,)}


@setting
class Overlooking(LowestEntropy):
    """A rule that reads the canvas, and does as before."""

    @property
    def reads(self):
        return frozenset({"canvas", "gap", "margin", "kl"})


def whole(forward):
    return forward.sight.replace(keys=None, proposal=None, length=forward.sight.start)


def prompts(rng):
    ids = np.zeros((2, 5), np.int32)
    for row, n in enumerate(LENGTHS):
        ids[row, 5 - n :] = rng.integers(0, 300, n)
    return ids, np.arange(5) >= 5 - np.array(LENGTHS)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chunk"), [("tiny-llada-gqa", None), ("tiny-dream", 3)])
def test_a_canvas_reads_as_the_slow_twin_reads_it(checkpoint, name, chunk):
    model, params = checkpoint(name)
    config = DecodeConfig(12, block_length=4, commit=Overlooking(2), logit_chunk=chunk, **LRD)
    ids, mask = prompts(np.random.default_rng(1))
    result, sight = jax.device_get(make_decode(model, config).watch(whole, params, ids, mask))
    slow = TwinModel(goldens.GOLDEN / name)
    for row, n in enumerate(LENGTHS):
        want = twin.twin_decode(
            slow, ids[row, 5 - n :], gen_length=12, block_length=4, commit=twin.lowest_entropy(2), **TWIN
        )
        steps = want.forwards
        assert int(result.forwards[row]) == steps
        np.testing.assert_array_equal(result.tokens[row], want.tokens)
        seen = jax.tree.map(lambda x, row=row, steps=steps: x[row, :steps], sight.canvas)
        ordered, p = np.sort(want.logits, axis=-1), softmax(want.logits)
        np.testing.assert_array_equal(seen.belief.token, want.logits.argmax(axis=-1))
        np.testing.assert_allclose(seen.belief.confidence, p.max(axis=-1), rtol=1e-3)
        np.testing.assert_allclose(seen.belief.gap, ordered[..., -1] - ordered[..., -2], atol=1e-3)
        np.testing.assert_array_equal(seen.masked[1:], want.canvases[:-1] == slow.mask_id)
        assert np.all(np.isposinf(seen.kl[0]))
        for step in range(1, steps):  # over the borders of blocks too
            kl = [twin.kl_of(*pair) for pair in zip(p[step], p[step - 1], strict=True)]
            np.testing.assert_allclose(seen.kl[step], kl, rtol=1e-2, atol=1e-4)
        inside = sight.start[row, :steps, None] + np.arange(4)
        for field in ("token", "confidence", "entropy", "margin", "gap"):
            of_canvas = np.take_along_axis(getattr(seen.belief, field), inside, axis=1)
            np.testing.assert_array_equal(of_canvas, getattr(sight.belief, field)[row, :steps])


WHOLE = {
    "daedal": DecodeConfig(12, block_length=4, length=DAEDAL(initial=6, factor=3, eos_conf=0.05, low=0.2)),
    "prophet": DecodeConfig.prophet(12, block_length=4, steps=12, answer_start=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_canvas_is_read_alike_in_pieces(checkpoint, name, monkeypatch):
    """By those that compare no beliefs and so keep none: of chunks of logits, and of what a core's cache holds."""
    model, params = checkpoint("tiny-llada-gqa")
    ids, mask = prompts(np.random.default_rng(2))
    want = make_decode(model, WHOLE[name])(params, ids, mask)
    chunked = make_decode(model, WHOLE[name].replace(logit_chunk=3))(params, ids, mask)
    monkeypatch.setattr(reading, "CACHED_BYTES", 4 * len(ids) * model.config.vocab_size * 5)
    cached = make_decode(model, WHOLE[name].replace(logit_chunk=12))(params, ids, mask)  # another program
    for got in (chunked, cached):
        np.testing.assert_array_equal(got.tokens, want.tokens)
        np.testing.assert_array_equal(got.forwards, want.forwards)


@pytest.mark.parametrize("cache", [PrefixCache(), DualCache(4)])
def test_a_cache_that_computes_a_part_of_the_canvas_is_refused(cache):
    with pytest.raises(ValueError, match=r"cache=.*Cache.* computes a part of the canvas, and commit=Overlooking\("):
        DecodeConfig(8, commit=Overlooking(), cache=cache)
