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
    check_rows,
    check_twin,
    dream_scheduled,
    grouped,
    inputs_of,
    rows_of,
    scheduled,
)
from quick import some_quick

from lrd_jax import DecodeConfig, DKVCache, DKVPrefill, Draw, Mix, Refine, Stop, Threshold, make_decode
from lrd_jax.decoding.setting import array, setting
from lrd_jax.models import Model

pytestmark = pytest.mark.usefixtures("users_compiler")


@setting
class RecordedDKV(DKVCache):
    """`refresh_every` of every row."""

    _: dataclasses.KW_ONLY
    every: jax.Array = array()

    def asks(self, inputs):
        on_time = inputs.block_forwards % self.every == 0
        return on_time if inputs.lead else on_time | (inputs.block_forwards < 2)


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


LRD = {"mix": Mix(), "refine": Refine(0.2, 4), "stop": Stop(0.05)}
TWIN_LRD = {"mix": (0.15, 0.9), "refine": (0.2, 4, "block"), "stop": (0.05,)}
CASES = {  # checkpoint, settings of the loop, of the twin
    "dkv, LRD": ("tiny-llada-gqa", {**LRD, "cache": DKVCache(3)}, lambda: {**TWIN_LRD, "cache": twin_caches.DKV(3)}),
    "dkv, un, threshold": (
        "tiny-dream",
        {"commit": Threshold(0.3), "cache": DKVCache(4)},
        lambda: {"commit": twin.fast_threshold(0.3), "cache": twin_caches.DKV(4)},
    ),
    "dkv, un_right, LRD": (
        "tiny-dream",
        {**LRD, "cache": DKVCache(3, "un_right")},
        lambda: {**TWIN_LRD, "cache": twin_caches.DKV(3, "un_right")},
    ),
    "prefill, threshold": (
        "tiny-llada-gqa",
        {"commit": Threshold(0.3), "cache": DKVPrefill()},
        lambda: {"commit": twin.fast_threshold(0.3), "cache": twin_caches.Prefill()},
    ),
    "prefill, LRD": (
        "tiny-dream",
        {**LRD, "cache": DKVPrefill()},
        lambda: {**TWIN_LRD, "cache": twin_caches.Prefill()},
    ),
}


@pytest.mark.parametrize("case", some_quick(CASES, 1))
def test_equals_the_slow_twin(checkpoint, case):
    name, settings, twin_settings = CASES[case]
    check_twin(checkpoint, name, DecodeConfig(12, block_length=4, **settings), twin_settings, canvases=(12, 8, 4))


@pytest.mark.parametrize("name", some_quick(["tiny-llada-gqa", "tiny-dream"], 1))
def test_a_row_alone_equals_the_row_in_a_batch(checkpoint, name):
    """Rows of other lengths, whose commits and refreshes come at other times."""
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=Threshold(0.25), draw=Draw(0.7), cache=DKVCache(3))
    together = check_rows(checkpoint, name, config, canvases=(12, 12, 8, 4))
    assert len(set(together.forwards.tolist())) > 2


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
