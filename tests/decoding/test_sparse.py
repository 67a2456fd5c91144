"""Sparse-dLLM: its own code's runs call by call, the slow twin, rows in batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
import twin_caches
from field_caches import Watched, canvas_of, check_case, check_rows, dream_scheduled, grouped, rows_of, scheduled
from quick import some_always, some_quick

from lrd_jax import DecodeConfig, Draw, FirstThen, Mix, Refine, SparseCache, Stop, Threshold
from lrd_jax.decoding.setting import array, setting

pytestmark = [pytest.mark.usefixtures("users_compiler"), pytest.mark.slow]
KERNELS = (1, 3, 5)


@setting
class RecordedSparse(SparseCache):
    """`keep_ratio` and `kernel_size` of every row."""

    _: dataclasses.KW_ONLY
    sizes: jax.Array = array()  # [B, positions] kept of so many
    kernels: jax.Array = array()  # [B] index into KERNELS

    def pooled(self, importance):
        ways = jnp.stack([SparseCache(kernel_size=size).pooled(importance) for size in KERNELS])
        return ways[self.kernels, jnp.arange(len(importance))]

    def keeps(self, there, most):
        return self.sizes[jnp.arange(len(there)), there]


def look(forward):
    """What the forward kept, and the logits of the canvas, NaN outside of the window."""
    after, start = forward.after, forward.sight.start
    canvas = jnp.full((*after.tokens.shape, after.previous.shape[-1]), jnp.nan)
    put = jax.vmap(lambda row, part, at: jax.lax.dynamic_update_slice_in_dim(row, part, at, 0))
    return {
        "logits": put(canvas, after.previous, start),
        "places": jnp.swapaxes(after.cache.places, 0, 1),
        "age": forward.before.block_forwards,
    }


NAMES = ("tiny-llada", "tiny-llada-gqa", "tiny-dream")
RUNS = {key: rows for name in NAMES for key, rows in grouped(rows_of("sparse", name), "block").items()}


@pytest.mark.parametrize("group", some_quick(RUNS, 1), ids=lambda group: "-".join(map(str, group)))
def test_runs(checkpoint, group):
    (name, W), rows = group, RUNS[group]
    ratios = [row.params["keep_ratio"] for row in rows]
    sizes = np.array([[int(n * ratio) for n in range(120)] for ratio in ratios])
    kernels = np.array([KERNELS.index(row.params["kernel_size"] or 1) for row in rows])
    commit = FirstThen(dream_scheduled(rows, W)) if name == "tiny-dream" else scheduled(rows, W)
    config = DecodeConfig(
        canvas_of(rows, W),
        block_length=W,
        commit=commit,
        cache=RecordedSparse(max(ratios), sizes=sizes, kernels=kernels),
        suppress_mask=False,
        trace=True,
    )
    watched = Watched(checkpoint, rows, config, look)
    watched.check_canvases()
    watched.check_canvas_logits()
    for row, places, age in zip(rows, watched.seen["places"], watched.seen["age"], strict=True):
        filled = places[: len(row.canvases)][age[: len(row.canvases)] == 1]
        for mine, want in zip(filled, row.array("kept"), strict=True):
            for layer, kept in zip(mine, want, strict=True):
                shift = watched.places(row).start
                np.testing.assert_array_equal(np.sort(layer[layer >= 0]) - shift, kept, err_msg=str(row))


LRD = {"mix": Mix(), "refine": Refine(0.2, 4), "stop": Stop(0.05)}
TWIN_LRD = {"mix": (0.15, 0.9), "refine": (0.2, 4, "block"), "stop": (0.05,)}
CASES = {  # checkpoint, settings of the loop, of the twin
    "LRD": (
        "tiny-llada-gqa",
        {**LRD, "cache": SparseCache(0.4)},
        lambda: {**TWIN_LRD, "cache": twin_caches.Sparse(0.4, 3)},
    ),
    "threshold": (
        "tiny-dream",
        {"commit": Threshold(0.3), "cache": SparseCache(0.5, 5)},
        lambda: {"commit": twin.fast_threshold(0.3), "cache": twin_caches.Sparse(0.5, 5)},
    ),
}


@pytest.mark.parametrize("case", some_always(CASES, 2))
def test_equals_the_slow_twin(checkpoint, case):
    check_case(checkpoint, CASES[case])


def test_a_row_alone_equals_the_row_in_a_batch(checkpoint):
    """Rows of other lengths, which keep other numbers of positions, and whose blocks begin at other times."""
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=Threshold(0.25), draw=Draw(0.7), cache=SparseCache(0.4))
    together = check_rows(checkpoint, "tiny-llada-gqa", config, canvases=(12, 12, 8, 4))
    assert len(set(together.forwards.tolist())) > 2
