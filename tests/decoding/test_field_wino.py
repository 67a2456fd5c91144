"""WINO against the runs of its own code: canvases after every call, and how many tokens were masked again."""

import field
import goldens
import jax.numpy as jnp
import pytest
from quick import some_quick

from lrd_jax import WINO, DecodeConfig, DKVCache, StopReason, make_decode

pytestmark = pytest.mark.usefixtures("users_compiler")
RUNS = goldens.field_runs("wino")
BATCHES = field.batches("wino", lambda key: RUNS[key]["params"]["block"])


def look(forward):
    """The canvas after a forward, and how many tokens of it were masked again."""
    return {
        "canvas": forward.after.tokens,
        "remasked": jnp.sum(forward.after.masked & ~forward.before.masked, axis=-1),
    }


@pytest.mark.parametrize("first", some_quick(BATCHES, 1))
def test_wino(checkpoint, first):
    keys = BATCHES[first]
    model, params = checkpoint(RUNS[first]["checkpoint"])
    rule = WINO(*(field.numbers("wino", keys, name) for name in ("threshold", "threshold_back")))
    config = DecodeConfig(
        max(RUNS[key]["params"]["gen"] for key in keys),
        block_length=RUNS[first]["params"]["block"],
        commit=rule,
        suppress_mask=False,
    )
    result, seen = field.watched(make_decode(model, config), look, params, keys, model.config.pad_id)
    assert set(result.stop_reason.tolist()) == {StopReason.FINISHED}
    for key, got in zip(keys, seen, strict=True):
        field.assert_same(key, got, "remasked")


def test_a_cache_that_feeds_no_shadows_is_refused():
    with pytest.raises(ValueError, match=r"cache=DKVCache\(.*\) feeds positions of the canvas only, .*commit=WINO"):
        DecodeConfig(8, commit=WINO(), cache=DKVCache())
