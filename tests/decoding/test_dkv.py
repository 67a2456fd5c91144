"""dKV-Cache: its own code's runs call by call, the slow twin, rows in batches."""

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
    check_twin,
    dream_scheduled,
    grouped,
    inputs_of,
    rows_of,
    scheduled,
)
from quick import some_always, some_quick

from lrd_jax import (
    DecodeConfig,
    DKVCache,
    DKVGreedy,
    DKVPrefill,
    Draw,
    Mix,
    RandomOrder,
    Refine,
    Stop,
    Threshold,
    make_decode,
)
from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.setting import array, setting
from lrd_jax.models import Model

pytestmark = [pytest.mark.usefixtures("users_compiler"), pytest.mark.slow]


@setting
class RecordedDKV(DKVCache):
    """`refresh_every` of every row."""

    _: dataclasses.KW_ONLY
    every: jax.Array = array()

    def asks(self, inputs):
        on_time = inputs.block_forwards % self.every == 0
        return on_time if inputs.lead else on_time | (inputs.block_forwards < 2)

    def sizes(self, inputs):
        return super().sizes(inputs)[::2]  # the twin's runs have them all; every one is compiled


def look(forward):
    """What was fed, and the hidden states that are kept of it."""
    inputs, cache = inputs_of(forward), forward.config.cache
    fed = cache.fed(inputs, forward.before.cache.masked) | cache.asks(inputs)[:, None]
    exists = jnp.ones_like(fed) if inputs.exists is None else inputs.exists
    return {"fed": fed & exists, "hidden": forward.after.cache.hidden}


def cache_of(rows):
    every = np.array([row.params["refresh"] or 1 for row in rows])
    if rows[0].params.get("cache_type") == "prefill":
        return DKVPrefill()
    return RecordedDKV(shift=rows[0].params.get("shift_type", "un"), every=every)


DECODE = grouped(rows_of("dkv_decode", "tiny-llada"), "block")
DREAM = grouped(rows_of("dkv_dream", "tiny-dream"), "cache_type", "shift_type")


@pytest.mark.parametrize("group", some_quick(DECODE, 1), ids=lambda group: "-".join(map(str, group)))
def test_decode_runs(checkpoint, group):
    rows, W = DECODE[group], group[1]
    check(checkpoint, rows, W, scheduled(rows, W))


@pytest.mark.parametrize("group", some_quick(DREAM, 1), ids=lambda group: "-".join(map(str, group)))
def test_dream_runs(checkpoint, group):
    rows = DREAM[group]
    check(checkpoint, rows, None, dream_scheduled(rows))


def check(checkpoint, rows, W, commit):
    G = canvas_of(rows, W or 1)
    config = DecodeConfig(G, block_length=W, commit=commit, cache=cache_of(rows), suppress_mask=False)
    watched = Watched(checkpoint, rows, config, look)
    watched.check_canvases()
    watched.check_positions()
    watched.check_logits()


@setting
class RecordedOrder(RandomOrder):
    """A schedule and the draws of every row as data."""

    _: dataclasses.KW_ONLY
    per_block: jax.Array = array()  # [B] steps
    draws_of: jax.Array = array()  # [B, G]

    @property
    def draws(self):
        return False

    def block_steps(self, sight):
        return self.per_block

    def uniform(self, sight):
        return take_window(self.draws_of, sight.start, sight.window)


@setting
class RecordedGreedy(DKVGreedy):
    """`refresh_every` of every row."""

    _: dataclasses.KW_ONLY
    every: jax.Array = array()

    def asks(self, inputs):
        return inputs.block_forwards % self.every == 0


def greedy_steps(row):
    return row.params["steps"] * row.params["block"] // row.params["gen"]


GREEDY = grouped(rows_of("dkv_greedy", "tiny-llada"), "block", "window")


@pytest.mark.parametrize("group", GREEDY, ids=lambda group: "-".join(map(str, group)))
def test_greedy_runs(checkpoint, group):
    rows, (_, W, window) = GREEDY[group], group
    G = canvas_of(rows, W)
    draws = np.zeros((len(rows), G), np.float32)
    for mine, row in zip(draws, rows, strict=True):
        for block, recorded in enumerate(row.array("rand")):
            mine[block * W : block * W + W] = recorded[len(row.prompt) + block * W :][:W]
    steps = np.array([greedy_steps(row) for row in rows])
    commit = RecordedOrder(steps=int(min(steps)) * (G // W), per_block=steps, draws_of=draws)
    cache = RecordedGreedy(window=window, every=np.array([row.params["refresh"] for row in rows]))
    config = DecodeConfig(G, block_length=W, commit=commit, cache=cache, suppress_mask=False)
    watched = Watched(checkpoint, rows, config, look)
    watched.check_canvases()
    watched.check_positions()
    watched.check_logits()


LRD = {"mix": Mix(), "refine": Refine(0.2, 4), "stop": Stop(0.05)}
TWIN_LRD = {"mix": (0.15, 0.9), "refine": (0.2, 4, "block"), "stop": (0.05,)}
CASES = {  # checkpoint, settings of the loop, of the twin
    "dkv, LRD": ("tiny-llada-gqa", {**LRD, "cache": DKVCache(3)}, lambda: {**TWIN_LRD, "cache": twin_caches.DKV(3)}),
    "dkv, un, threshold": (
        "tiny-dream",
        {"commit": Threshold(0.3), "cache": DKVCache(4)},
        lambda: {"commit": twin.fast_threshold(0.3), "cache": twin_caches.DKV(4)},
    ),
    "dkv, un_right, threshold": (
        "tiny-dream",
        {"commit": Threshold(0.3), "cache": DKVCache(3, "un_right")},
        lambda: {"commit": twin.fast_threshold(0.3), "cache": twin_caches.DKV(3, "un_right")},
    ),
    "prefill, LRD": (
        "tiny-dream",
        {**LRD, "cache": DKVPrefill()},
        lambda: {**TWIN_LRD, "cache": twin_caches.Prefill()},
    ),
}


@pytest.mark.parametrize("case", some_always(CASES, 2))
def test_equals_the_slow_twin(checkpoint, case):
    check_case(checkpoint, CASES[case])


def test_a_row_alone_equals_the_row_in_a_batch(checkpoint):
    """Rows of other lengths, whose commits and refreshes come at other times."""
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=Threshold(0.25), draw=Draw(0.7), cache=DKVCache(3))
    together = check_rows(checkpoint, "tiny-dream", config, canvases=(12, 12, 8, 4))
    assert len(set(together.forwards.tolist())) > 2


@pytest.mark.parametrize("name", some_quick(["tiny-llada-gqa", "tiny-dream"], 1))
def test_greedy_equals_the_slow_twin(checkpoint, name):
    draws = np.random.default_rng(3).permutation(12).astype(np.float32)
    order = [place for begin in (0, 4, 8) for place in begin + np.argsort(-draws[begin : begin + 4])]

    commit = RecordedOrder(per_block=np.full(3, 4), draws_of=np.tile(draws, (3, 1)))
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=commit, cache=DKVGreedy(3, 2))
    check_twin(
        checkpoint,
        name,
        config,
        lambda: {
            "mix": (0.15, 0.9),
            "commit": InOrder(order),
            "cache": twin_caches.Greedy(3, 2, order),
        },
        canvases=(12, 8, 4),
    )


class InOrder:
    """A commit rule of the twin: the canvas' places in one order, one a commit; every block is a part of it."""

    def __init__(self, order):
        self.order = iter(order)

    def __call__(self, belief, masked, step):
        return np.arange(len(masked)) == next(self.order) % len(masked)


def test_a_greedy_row_alone_equals_the_row_in_a_batch(checkpoint):
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=RandomOrder(), draw=Draw(0.7), cache=DKVGreedy(2, 1))
    check_rows(checkpoint, "tiny-llada-gqa", config, canvases=(12, 12, 8, 4))


def test_only_what_is_fed_is_computed(checkpoint):
    plain, params = checkpoint("tiny-llada")
    seen = set()

    class Spied(Model):
        def hidden_and_cache(self, params, embeddings, *rest):
            seen.add(embeddings.shape[1])
            return super().hidden_and_cache(params, embeddings, *rest)

    for cache, sizes in ((DKVCache(), {7 + 12, 12, 9, 6, 3}), (DKVPrefill(), {7 + 12, 12})):
        seen.clear()
        config = DecodeConfig(12, block_length=4, cache=cache)
        jax.eval_shape(
            lambda params, ids, config=config: make_decode(Spied(plain.config), config)(params, ids).tokens,
            params,
            jnp.zeros((1, 7), int),
        )
        assert seen == sizes
