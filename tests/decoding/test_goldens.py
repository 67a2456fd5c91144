"""The loop against the goldens: every LRD run, and every run of the reference samplers that has no cache.

Runs that differ only in numbers share a compile; LRD's prompts are left-padded to one length, so that they share it too
and the padding is under test with them.
"""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import some_quick

from lrd_jax import (
    DecodeConfig,
    Divergence,
    Draw,
    Dream,
    DreamThreshold,
    LowestEntropy,
    Mix,
    Refine,
    Scheduled,
    Stop,
    StopReason,
    Threshold,
    make_decode,
)
from lrd_jax.decoding.setting import setting
from lrd_jax.decoding.vocab.nucleus import in_nucleus

pytestmark = pytest.mark.usefixtures("users_compiler")
PROMPT_LENGTH = max(len(goldens.arrays("lrd")[f"{key}.prompt"]) for key in goldens.lrd_runs())


def steps_of(model, params, config, prompt, prompt_mask=None):
    """Decodes forward by forward; yields the state after each one, on the host: `advance` consumes what it is given."""
    decode = make_decode(model, config)
    state = decode.start(params, prompt, prompt_mask)
    while bool(jnp.any(state.running)):
        state = decode.advance(params, state)
        yield jax.device_get(state.replace(keys=None))


@jax.jit
def nucleus_sizes(logits, top_p):
    return jnp.sum(in_nucleus(jax.nn.softmax(logits, axis=-1), top_p), axis=-1)


def lrd_config(p):
    return DecodeConfig(
        p["gen_length"],
        block_length=p["block_length"],
        mix=Mix(p["r_f"], p["top_p"]),
        refine=Refine(p["tau_refine"], p["t_refine"]) if p["refine"] else None,
        commit=LowestEntropy(p["per_step"], p["threshold"]),
        stop=Stop(p["tau_decode"]) if p["stop"] else None,
        divergence=Divergence(p["reduce"], p["scope"]),
        trace=True,
    )


@pytest.mark.parametrize("key", some_quick(goldens.lrd_runs(), 2))
def test_latent_refinement_decoding(checkpoint, key):
    run, stored = goldens.lrd_runs()[key], goldens.arrays("lrd")
    model, params = checkpoint(run["checkpoint"])
    config = lrd_config(run["params"])
    prompt = stored[f"{key}.prompt"]
    pad = PROMPT_LENGTH - len(prompt)
    padded = np.pad(prompt, (pad, 0), constant_values=model.config.pad_id)[None]
    states = list(steps_of(model, params, config, padded, (np.arange(PROMPT_LENGTH) >= pad)[None]))
    result = make_decode(model, config).result(states[-1])
    n = run["forwards"]

    assert (int(result.forwards[0]), int(result.refine_forwards[0])) == (n, run["refine_forwards"])
    np.testing.assert_array_equal([state.tokens[0] for state in states], stored[f"{key}.canvas"])
    np.testing.assert_array_equal(result.tokens[0], stored[f"{key}.tokens"])
    np.testing.assert_array_equal(~result.trace.refining[0, :n], stored[f"{key}.phase"])
    assert result.stop_reason[0] == (StopReason.SETTLED if run["stopped"] else StopReason.FINISHED)
    logits = np.stack([state.previous[0] for state in states])
    certain = n if config.mix.r_f == 0 else assert_same_nuclei(logits, config.mix.top_p, stored[f"{key}.nucleus"])
    for got, name in ((result.trace.divergence[0, :n], "kl"), (entropy_of(logits), "entropy")):
        want = stored[f"{key}.{name}"]
        np.testing.assert_allclose(got[:certain], want[:certain], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(got[certain:], want[certain:], rtol=1e-2, atol=1e-2)


def assert_same_nuclei(logits, top_p, want):
    """Sizes of nuclei equal the recorded `[n, W]`; returns how many steps see only what float32 is certain of.

    The record is in float64. Where float32 cannot tell which token is a nucleus's last (its mass is at top_p, or two
    tokens tie there), one token more or less is fed back, and the steps that follow see slightly other numbers.
    With top_p = 1 the recorded sizes are V +- 1 by the rounding of a sum of 1: all of the vocabulary but [MASK].
    """
    n, V = len(logits), logits.shape[-1]
    p = np.sort(np.asarray(jax.nn.softmax(logits, axis=-1), np.float64), axis=-1)[..., ::-1]
    got, want = np.stack([nucleus_sizes(step, top_p) for step in logits]), np.minimum(want, V - 1)
    got = np.minimum(got, V - 1)
    last, after = (np.take_along_axis(p, want[..., None] + i, axis=-1)[..., 0] for i in (-1, 0))
    mass = np.take_along_axis(np.cumsum(p, axis=-1), want[..., None] - 1, axis=-1)[..., 0]
    tie = last - after < 1e-5 * last
    tie |= np.take_along_axis(p, np.maximum(want - 2, 0)[..., None], axis=-1)[..., 0] - last < 1e-5 * last
    at_top_p = (np.abs(mass - top_p) < 1e-5) | (np.abs(mass - last - top_p) < 1e-5)
    doubtful = (tie | at_top_p) & (top_p < 1)
    np.testing.assert_array_equal(got[~doubtful], want[~doubtful])
    assert np.all(np.abs(got - want) <= 1)
    doubtful_steps = np.flatnonzero(doubtful.any(axis=-1))
    return int(doubtful_steps[0]) + 1 if len(doubtful_steps) else n


@jax.jit
def entropy_of(logits):
    p = jax.nn.softmax(logits, axis=-1)
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0), axis=-1)


def reference_config(key, model):
    """The config that is the reference sampler of a run; its [MASK] logit takes part, as in all of them."""
    run = goldens.reference_runs()[key]
    p = run["params"]
    common = {"suppress_mask": False}
    if "fn" not in p:  # Dream
        if p["alg"] == "confidence_threshold":
            rule = DreamThreshold(p["threshold"], p["steps"])
        elif p["alg"] == "origin":
            rule = recorded_origin(goldens.uniforms(key, model.config.mask_id))(p["alg"], p["steps"])
        else:
            rule = Dream(p["alg"], p["steps"])
        return DecodeConfig(
            goldens.canvases(key).shape[-1], commit=rule, draw=Draw(top_p=p["top_p"], top_k=p["top_k"]), **common
        )
    if p.get("threshold") is not None:
        rule = Threshold(p["threshold"])
    else:
        rule = Scheduled(p["steps"])
    return DecodeConfig(
        p["gen_length"],
        block_length=p["block_length"],
        commit=rule,
        cfg_scale=p.get("cfg_scale") or None,
        **common,
    )


def recorded_origin(uniforms):
    """Dream's "origin" with the draws `[steps, B, G]` that the reference made."""

    @setting
    class RecordedOrigin(Dream):
        draws = False

        def uniform(self, sight):
            return jnp.asarray(uniforms)[sight.commits, jnp.arange(uniforms.shape[1])]

    return RecordedOrigin


UNCACHED = [key for key in goldens.reference_runs() if goldens.cache_of(key) is None]


@pytest.mark.parametrize("key", some_quick(UNCACHED, 1))
def test_reference_samplers(checkpoint, key):
    run = goldens.reference_runs()[key]
    model, params = checkpoint(run["checkpoint"])
    config = reference_config(key, model)
    states = list(steps_of(model, params, config, *goldens.prompts(key)))
    empty = goldens.empty_calls(key)
    np.testing.assert_array_equal([state.tokens for state in states], goldens.canvases(key)[1:][~empty])
    result = make_decode(model, config).result(states[-1])
    assert set(result.forwards.tolist()) == {run["nfe"] - (2 if run["params"].get("cfg_scale") else 1) * empty.sum()}
    assert set(result.stop_reason.tolist()) == {StopReason.FINISHED}
