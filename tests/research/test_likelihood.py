"""LLaDA's Monte-Carlo log-likelihood: the recorded samples, the way samples are drawn, and the estimate."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twin_model import TwinModel, softmax

from lrd_jax.research.likelihood import draw_masks, make_log_likelihood, mask_counts, sample_losses

pytestmark = pytest.mark.slow

CASES = {
    "tiny-llada.loglik.case0_cfg0.0_mc32": 0.0,
    "tiny-llada.loglik.case1_cfg0.5_mc16": 0.5,
    "tiny-llada.loglik.case2_cfg0.0_mc128": 0.0,
}


def recorded(case):
    stored = goldens.arrays("tiny-llada.loglik")
    return {name: stored[f"{case}.{name}"] for name in ("prompt", "answer", "noisy", "p_mask", "row_loss", "loglik")}


@pytest.mark.parametrize("case", CASES)
def test_losses_of_the_recorded_samples(checkpoint, case):
    model, params = checkpoint("tiny-llada", "float32")
    run = recorded(case)
    P, A = len(run["prompt"]), len(run["answer"])
    masked = (run["noisy"] == model.config.mask_id).reshape(-1, P + A)[:, P:]
    losses = jax.jit(sample_losses, static_argnums=(0, 5))(
        model, params, run["prompt"], run["answer"], masked, CASES[case]
    )
    np.testing.assert_allclose(losses, run["row_loss"].reshape(-1), rtol=2e-5, atol=2e-4)
    np.testing.assert_allclose(-jnp.mean(losses), run["loglik"], rtol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_mask_counts_are_spread_as_recorded(case):
    run = recorded(case)
    A = len(run["answer"])
    for batch in run["p_mask"]:
        counts = np.rint(batch[:, 0] * A).astype(int)
        assert any((np.asarray(mask_counts(jnp.int32(k), len(counts), A)) == counts).all() for k in range(1, A + 1))


def test_masks_have_the_counts_of_a_start_and_differ_by_key():
    drawn = [np.asarray(draw_masks(jax.random.key(seed), 8, 12)) for seed in range(4)]
    for masked in drawn:
        start = jnp.int32(masked[0].sum())
        np.testing.assert_array_equal(masked.sum(axis=1), mask_counts(start, 8, 12))
    assert len({masked.tobytes() for masked in drawn}) == 4


def test_every_position_is_masked_equally_often():
    keys = jax.random.split(jax.random.key(0), 500)
    share = jax.jit(jax.vmap(lambda key: draw_masks(key, 16, 10)))(keys).mean(axis=(0, 1))
    np.testing.assert_allclose(share, 0.55, atol=0.03)  # mean count 5.5 of 10


def test_estimate_is_the_mean_over_its_own_samples(checkpoint):
    model, params = checkpoint("tiny-llada", "float32")
    run = recorded("tiny-llada.loglik.case1_cfg0.5_mc16")
    key = jax.random.key(3)
    estimate = make_log_likelihood(model, num_samples=12, batch_size=4)(params, run["prompt"], run["answer"], key)
    masked = jnp.concatenate([draw_masks(k, 4, len(run["answer"])) for k in jax.random.split(key, 3)])
    losses = jax.jit(sample_losses, static_argnums=0)(model, params, run["prompt"], run["answer"], masked)
    np.testing.assert_allclose(estimate, -losses.mean(), rtol=1e-5)


@pytest.mark.parametrize("prompt", [[5, 9, 2], []], ids=["prompt", "no prompt"])
def test_dream_reads_the_position_before(checkpoint, prompt):
    model, params = checkpoint("tiny-dream", "float32")
    slow = TwinModel(goldens.GOLDEN / "tiny-dream")
    prompt, answer = np.array(prompt, np.int32), np.array([7, 380, 3, 11])  # a literal mask id hides nothing by itself
    masked = np.array([[True, False, True, False], [True, True, True, True]])
    want = []
    for row in masked:
        ids = np.concatenate([prompt, np.where(row, slow.mask_id, answer)])
        p = softmax(slow.logits(slow.table[ids]))[len(prompt) :]
        want.append(-np.log(p[np.arange(4), answer])[row].sum() * 4 / row.sum())
    got = jax.jit(sample_losses, static_argnums=0)(model, params, prompt, answer, masked)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_samples": 10, "batch_size": 4}, "num_samples=10 must be a positive multiple of batch_size=4"),
        ({"cfg_scale": -1.0}, "cfg_scale=-1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(checkpoint, settings, words):
    with pytest.raises(ValueError, match=words):
        make_log_likelihood(checkpoint("tiny-llada")[0], **settings)


@pytest.mark.parametrize(
    "prompt, answer, words",
    [
        (np.zeros((1, 3), int), np.zeros(4, int), r"prompt must be one row of integer token ids, got int\d+ \[1, 3\]"),
        (np.zeros(3, int), np.zeros(4, float), r"answer must be one row of integer token ids, got float"),
        (np.zeros(3, int), np.zeros(0, int), "answer is empty"),
        (
            np.zeros(500, int),
            np.zeros(13, int),
            "prompt of 500 [+] answer of 13 tokens exceed the model's context of 512",
        ),
    ],
)
def test_ids_that_do_not_fit_are_refused(checkpoint, prompt, answer, words):
    model, params = checkpoint("tiny-llada", "float32")
    with pytest.raises(ValueError, match=words):
        make_log_likelihood(model)(params, prompt, answer, jax.random.key(0))
