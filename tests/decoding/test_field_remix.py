"""ReMix against the runs of its own code: canvases after every call, mixed inputs, and positions that were reset."""

import field
import goldens
import jax.numpy as jnp
import numpy as np
import pytest
from quick import some_quick

from lrd_jax import Capped, DecodeConfig, ReMix, make_decode
from lrd_jax.decoding.canvas import take_window

pytestmark = pytest.mark.usefixtures("users_compiler")
RUNS = goldens.field_runs("remix")
BATCHES = field.batches("remix", lambda key: RUNS[key]["params"]["block"])


def look(forward):
    """The canvas after a forward, whether its own inputs were mixed, and masked positions that it reset."""
    rule, before = forward.config.mix, forward.before
    left = take_window(forward.after.masked, forward.sight.start, forward.config.window)
    mask = forward.model.embed(forward.params, jnp.int32(forward.model.config.mask_id))
    return {
        "canvas": forward.after.tokens,
        "mixed": jnp.any((before.soft != mask) & forward.sight.masked[..., None], axis=(1, 2)),
        "reset": jnp.sum(rule.observe(forward.sight, before.parts["mix"]) & left, axis=-1),
    }


@pytest.mark.parametrize("first", some_quick(BATCHES, 1))
def test_remix(checkpoint, first):
    keys = BATCHES[first]
    model, params = checkpoint(RUNS[first]["checkpoint"])
    beta, js, threshold = (field.numbers("remix", keys, name) for name in ("beta", "js_threshold", "threshold"))
    config = DecodeConfig(
        max(RUNS[key]["params"]["gen"] for key in keys),
        block_length=RUNS[first]["params"]["block"],
        mix=ReMix(beta, js),
        commit=Capped(threshold),
        suppress_mask=False,
    )
    _, seen = field.watched(make_decode(model, config), look, params, keys, model.config.pad_id)
    for key, got in zip(keys, seen, strict=True):
        field.assert_same(key, got, "reset")
        np.testing.assert_array_equal(got["mixed"], mixed_inputs(key), err_msg=key)


def mixed_inputs(key):
    """bool `[n]`: recorded calls with mixed inputs, but where nothing was left to mix: at beta 0, or all reset."""
    p, mixed = RUNS[key]["params"], goldens.field_array(key, "mixed").astype(bool)
    start = goldens.field_array(key, "canvases")[:-1, 0, p["prompt_length"] :]
    masked = (start == p["mask_id"]).reshape(len(start), -1, p["block"]).sum(axis=-1)
    open_ = masked[np.arange(len(masked)), np.argmax(masked > 0, axis=-1)]
    reset = np.concatenate([[0], goldens.field_array(key, "reset")[:-1]])
    return mixed & (p["beta"] > 0) & (reset < open_)
