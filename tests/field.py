"""Runs of the field's golden data as batches: what differs in numbers and lengths alone is decoded at once.

Prompts are left-padded to one length and shorter canvases are rows of their own length, so that both are under test
with what the runs are about.
"""

import itertools
import json

import goldens
import jax.numpy as jnp
import numpy as np

PROMPT_LENGTH = 25


def batches(decoder, structure):
    """The runs of a decoder by the first of each batch: those of one checkpoint and `structure(key)` together."""

    def group(key):
        return goldens.field_runs(decoder)[key]["checkpoint"], json.dumps(structure(key), sort_keys=True)

    keys = sorted(goldens.field_runs(decoder), key=group)
    found = (list(keys) for _, keys in itertools.groupby(keys, key=group))
    return {keys[0]: keys for keys in found}


def numbers(decoder, keys, name):
    """A number of the runs' parameters, one a row `[B]`."""
    return np.array([goldens.field_runs(decoder)[key]["params"][name] for key in keys], np.float32)


def watched(decode, look, params, keys, pad_id):
    """`decode.watch` of the runs' prompts: a list, for each run, of what was seen on its forwards."""
    prompts = [goldens.field_array(key, "prompt")[0] for key in keys]
    ids = np.full((len(keys), PROMPT_LENGTH), pad_id, np.int32)
    mask = np.zeros(ids.shape, bool)
    for row, prompt in enumerate(prompts):
        ids[row, PROMPT_LENGTH - len(prompt) :], mask[row, PROMPT_LENGTH - len(prompt) :] = prompt, True
    lengths = np.array([goldens.field_array(key, "tokens").shape[1] for key in keys]) - [len(p) for p in prompts]
    result, seen = decode.watch(look, params, ids, mask, length=lengths)
    return result, [
        {name: np.asarray(x[row, :n]) for name, x in seen.items()} for row, n in enumerate(result.forwards.tolist())
    ]


def canvas(forward):
    """The canvas `[B, G]` after a forward; the mask id where it is masked."""
    return jnp.where(forward.after.masked, forward.model.config.mask_id, forward.after.tokens)


def recorded(key):
    """Canvases after every call of a run, `[n, G]`."""
    prompt = goldens.field_array(key, "prompt").shape[1]
    return goldens.field_array(key, "canvases")[1:, 0, prompt:]


def assert_same(key, got, *counts, calls=None):
    """What was seen on every forward equals what was recorded on every call, or on the first so many."""
    want = recorded(key)
    calls = len(want) if calls is None else calls
    left = np.any(want[-1] == goldens.field_runs(key.split(".")[1])[key]["params"]["mask_id"])
    assert left or len(got["canvas"]) == len(want), f"{key}: {len(got['canvas'])} forwards"
    np.testing.assert_array_equal(got["canvas"][:calls, : want.shape[1]], want[:calls], err_msg=key)
    for name in counts:
        np.testing.assert_array_equal(
            got[name][:calls], goldens.field_array(key, name)[:calls], err_msg=f"{key} {name}"
        )
