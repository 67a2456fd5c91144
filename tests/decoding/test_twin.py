"""The twin itself is held to the goldens, so that it can be trusted where there are none."""

from types import SimpleNamespace

import goldens
import numpy as np
import pytest
import twin
from twin_model import TwinModel, softmax


@pytest.fixture(scope="module")
def models():
    return {name: TwinModel(goldens.GOLDEN / name) for name in ("tiny-llada", "tiny-llada-gqa", "tiny-dream")}


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-llada-gqa", "tiny-dream"])
def test_logits_are_the_references(models, name):
    stored = goldens.arrays(f"{name}.forward")
    raw = stored["ids_b3_l17.logits"]
    want = np.concatenate([raw[:, :1], raw[:, :-1]], axis=1) if name == "tiny-dream" else raw
    got = np.stack([models[name].logits(models[name].table[ids]) for ids in stored["ids_b3_l17.input_ids"]])
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize("key", goldens.lrd_runs())
def test_latent_refinement_decoding(models, key):
    run, stored = goldens.lrd_runs()[key], goldens.arrays("lrd")
    params = run["params"]
    got = twin.twin_decode(
        models[run["checkpoint"]],
        stored[f"{key}.prompt"],
        gen_length=params["gen_length"],
        block_length=params["block_length"],
        mix=(params["r_f"], params["top_p"]),
        refine=(params["tau_refine"], params["t_refine"], "block") if params["refine"] else None,
        commit=twin.lowest_entropy(params["per_step"], params["threshold"]),
        stop=(params["tau_decode"],) if params["stop"] else None,
        divergence=(params["reduce"], params["scope"]),
    )
    assert (got.forwards, got.refine_forwards) == (run["forwards"], run["refine_forwards"])
    np.testing.assert_array_equal(got.canvases, stored[f"{key}.canvas"])
    np.testing.assert_array_equal(got.tokens, stored[f"{key}.tokens"])
    np.testing.assert_array_equal(got.phase, stored[f"{key}.phase"])
    np.testing.assert_allclose(got.kl, stored[f"{key}.kl"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got.entropy, stored[f"{key}.entropy"], rtol=1e-3, atol=1e-4)
    # With top_p = 1 the recorded sizes are V +- 1 by the rounding of a sum of 1: all of the vocabulary but [MASK].
    most = len(models[run["checkpoint"]].table) - 1
    np.testing.assert_array_equal(np.minimum(got.nucleus, most), np.minimum(stored[f"{key}.nucleus"], most))


def rule_of(params, blocks, draws):
    """The twin's commit rule for a reference run's parameters."""
    if "dual_cache" in params:
        return twin.dream_in_blocks(params["steps"] // blocks, params["threshold"], top_k=50)
    if "fn" in params:
        if params.get("threshold") is not None:
            return twin.fast_threshold(params["threshold"])
        return twin.llada(params["steps"] // blocks)
    if params["alg"] == "origin":
        return twin.dream_origin(params["steps"], draws)
    if params["alg"] == "confidence_threshold":
        return twin.dream_threshold(params["steps"], params["threshold"])
    return twin.dream(params["alg"], params["steps"], params["top_p"], params["top_k"])


@pytest.mark.parametrize("key", goldens.reference_runs())
def test_reference_samplers(models, key):
    run = goldens.reference_runs()[key]
    params, model = run["params"], models[run["checkpoint"]]
    recorded = goldens.canvases(key)
    G = recorded.shape[-1]
    block_length = params.get("block_length", G)
    draws = goldens.uniforms(key, model.mask_id) if params.get("alg") == "origin" else None
    ids, mask = goldens.prompts(key)
    for row in range(len(ids)):
        got = twin.twin_decode(
            model,
            ids[row, mask[row]],
            gen_length=G,
            block_length=block_length,
            commit=rule_of(params, G // block_length, None if draws is None else draws[:, row]),
            suppress_mask=False,
            cfg_scale=params.get("cfg_scale", 0.0),
            cache=goldens.cache_of(key),
        )
        want = recorded[1:, row][~goldens.empty_calls(key)]
        np.testing.assert_array_equal(got.canvases, want)


def test_dream_schedule():
    for masks, steps, *want in goldens.arrays("dream.functions")["schedule"]:
        counts = []
        for step in range(steps):
            counts.append(int(np.float32(masks - sum(counts)) * twin.dream_time(step, steps)))
        assert counts == want[:steps], (masks, steps)


def test_llada_schedule():
    belief = SimpleNamespace(conf=np.linspace(1, 0.5, 64))
    for masks, steps, *want in goldens.arrays("llada.functions")["num_transfer_tokens"]:
        rule = twin.llada(steps)
        counts = [rule(belief, np.ones(masks, bool), step).sum() for step in range(min(steps, len(want)))]
        assert counts == want[: len(counts)], (masks, steps)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9, 1.1])
def test_fast_threshold(threshold):
    stored = goldens.arrays("llada.functions")
    belief = SimpleNamespace(conf=softmax(stored["transfer.logits"][0].astype(float)).max(axis=-1))
    chosen = twin.fast_threshold(threshold)(belief, stored["transfer.mask_index"][0], 0)
    np.testing.assert_array_equal(chosen, stored[f"transfer.thr{threshold}.index"][0])


@pytest.mark.parametrize("order", ["maskgit_plus", "topk_margin", "entropy"])
@pytest.mark.parametrize("top_p, top_k", [(None, None), (0.9, None), (0.5, None), (None, 5), (0.95, 10), (1.0, 50)])
def test_dream_confidence(order, top_p, top_k):
    stored = goldens.arrays("dream.functions")
    got = [twin.dream_confidence(order, row.astype(float), top_p, top_k) for row in stored["sample.logits"]]
    np.testing.assert_allclose(got, stored[f"sample.{order}_p{top_p}_k{top_k}.conf"], atol=1e-5)


def test_refinement_before_every_commit_takes_its_forwards(models):
    prompt = np.array([17, 203, 5, 88])
    got = twin.twin_decode(models["tiny-llada"], prompt, gen_length=6, mix=(0.15, 0.9), refine=(0.0, 3, "commit"))
    assert got.phase.tolist() == [False] * 18
    committed = np.diff((got.canvases != models["tiny-llada"].mask_id).sum(axis=1), prepend=0)
    assert committed.tolist() == [0, 0, 1] * 6


def test_end_token_ends_the_row_when_nothing_before_it_is_masked(models):
    model, prompt = models["tiny-llada"], np.array([17, 203, 5, 88])
    free = twin.twin_decode(model, prompt, gen_length=8)
    cut = twin.twin_decode(model, prompt, gen_length=8, end_ids=(int(free.tokens[0]), 1))
    open_after_first = np.flatnonzero(free.canvases[:, 0] != model.mask_id)[0] + 1
    assert (cut.forwards, cut.stop_reason) == (open_after_first, "end_of_text")
    still_masked = free.canvases[open_after_first - 1] == model.mask_id
    np.testing.assert_array_equal(
        cut.tokens, np.where(still_masked, free.tokens[0], free.canvases[open_after_first - 1])
    )
