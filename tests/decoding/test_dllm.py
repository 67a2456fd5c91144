"""dLLM-Cache: its own code's runs call by call, the slow twin, rows in batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
import twin_caches
from field_caches import (
    Watched,
    canvas_of,
    check_case,
    check_rows,
    dream_scheduled,
    grouped,
    rows_of,
    scheduled,
)
from quick import some_always, some_quick

from lrd_jax import DecodeConfig, DLLMCache, Draw, LowestEntropy, Mix, Refine, Stop, Threshold, make_decode
from lrd_jax.decoding.forward import embed
from lrd_jax.decoding.setting import array, setting
from lrd_jax.models.transformer import Blocks

pytestmark = pytest.mark.usefixtures("users_compiler")


@setting
class RecordedDLLM(DLLMCache):
    """`prompt_every` and `response_every` of every row."""

    _: dataclasses.KW_ONLY
    prompts: jax.Array = array()
    responses: jax.Array = array()

    def _prompt_is_due(self, inputs):
        return inputs.forwards % self.prompts == 0

    def _response_is_due(self, inputs):
        return inputs.forwards % self.responses == 0


def look(forward):
    """The logits of the canvas, and what was recomputed in every block."""
    before, after = forward.before.cache.attended, forward.after.cache.attended
    turned = jnp.any(before != after, axis=-1)
    return {"logits": forward.after.previous, "turned": jnp.swapaxes(turned, 0, 1)}


RUNS = grouped(rows_of("dllm_cache", "tiny-llada"), "block", "rho") | grouped(
    rows_of("dllm_cache", "tiny-dream"), "rho"
)


@pytest.mark.slow
@pytest.mark.parametrize("group", some_quick(RUNS, 1), ids=lambda group: "-".join(map(str, group)))
def test_runs(checkpoint, group):
    rows, rho = RUNS[group], group[-1]
    W = group[1] if len(group) == 3 else None
    kp, kr = (np.array([row.params[name] for row in rows]) for name in ("Kp", "Kr"))
    cache = RecordedDLLM(rho=rho, prompts=kp, responses=kr)
    commit = scheduled(rows, W, whole=True) if W else dream_scheduled(rows, whole=True)
    config = DecodeConfig(
        canvas_of(rows, W or 1),
        block_length=W,
        commit=commit,
        cache=cache,
        suppress_mask=False,
        trace=True,
    )
    watched = Watched(checkpoint, rows, config, look)
    watched.check_canvases()
    watched.check_canvas_logits()
    for row, turned in zip(rows, watched.seen["turned"], strict=True):
        check_turned(row, turned[: len(row.canvases), :, watched.places(row)])


def check_turned(row, turned):
    """What every call recomputed, `[n, layers, L]`: the recorded sets, and all that was due."""
    P, Kp, Kr = len(row.prompt), row.params["Kp"], row.params["Kr"]
    transfer = row.array("transfer")[:, row.index]
    for call, (mine, chosen) in enumerate(zip(turned, transfer, strict=True)):
        assert mine[0, P:].any() or call == 0 or not turned[call].any()
        for layer in range(1, len(mine)):
            want = np.zeros(mine.shape[1], bool)
            want[:P] = call % Kp == 0
            want[P:] = call % Kr == 0
            want[chosen[layer][chosen[layer] >= 0]] = True
            np.testing.assert_array_equal(mine[layer], want, err_msg=f"{row}, call {call}, block {layer}")


LRD = {"mix": Mix(), "refine": Refine(0.2, 4), "stop": Stop(0.05)}
TWIN_LRD = {"mix": (0.15, 0.9), "refine": (0.2, 4, "block"), "stop": (0.05,)}
CASES = {  # checkpoint, settings of the loop, of the twin
    "LRD": (
        "tiny-llada-gqa",
        {**LRD, "cache": DLLMCache(5, 3, 0.3)},
        lambda: {**TWIN_LRD, "cache": twin_caches.DLLM(5, 3, 0.3)},
    ),
    "threshold": (
        "tiny-dream",
        {"commit": Threshold(0.3), "cache": DLLMCache(4, 2, 0.5)},
        lambda: {"commit": twin.fast_threshold(0.3), "cache": twin_caches.DLLM(4, 2, 0.5)},
    ),
    "everything always is no cache": (
        "tiny-dream",
        {"commit": LowestEntropy(2), "cache": DLLMCache(1, 1)},
        lambda: {"commit": twin.lowest_entropy(2)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", some_always(CASES, 2))
def test_equals_the_slow_twin(checkpoint, case):
    check_case(checkpoint, CASES[case])


@pytest.mark.slow
def test_a_row_alone_equals_the_row_in_a_batch(checkpoint):
    """Rows of other lengths, so that other shares of them are recomputed, that end at other times."""
    cache = DLLMCache(6, 4, 0.3)
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=Threshold(0.25), draw=Draw(0.7), cache=cache)
    together = check_rows(checkpoint, "tiny-dream", config, canvases=(12, 12, 8, 4))
    assert len(set(together.forwards.tolist())) > 2


def test_rows_of_other_clocks_wait_for_each_others_refresh(checkpoint):
    """A slot whose row has just begun, beside one that is between two refreshes."""
    model, params = checkpoint("tiny-llada")
    config = DecodeConfig(8, cache=DLLMCache(4, 2))
    decode = make_decode(model, config)
    state = decode.start(params, np.zeros((3, 2), int))
    for forwards, want in (([0, 0, 0], [0, 0, 0]), ([0, 1, 3], [1, 0, 0]), ([0, 2, 4], [0, 0, 0])):
        inputs = embed(model, params, config, state.replace(forwards=jnp.array(forwards)))
        assert config.cache.waiting(inputs).tolist() == want


def test_only_what_is_chosen_is_computed(checkpoint):
    """The sizes of the queries that a decode is compiled for: everything, the response, and a share of it."""
    model, params = checkpoint("tiny-llada")
    seen, queries = set(), Blocks.queries

    def spied(self, h, cos, sin):
        seen.add(h.shape[1])
        return queries(self, h, cos, sin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blocks, "queries", spied)
        decode = make_decode(model, DecodeConfig(12, cache=DLLMCache(rho=0.3)))
        jax.eval_shape(lambda params: decode(params, np.zeros((1, 7), int)).tokens, params)
    assert seen == {19, 12, 3}
