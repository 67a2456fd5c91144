"""Training through refinement: gradients against a plain unrolled twin and finite differences, memory, rows, depths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrd_jax.models import Model
from lrd_jax.sharding import make_mesh, shard_batch
from lrd_jax.tasks import TASKS
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.train.config import Bucket, Data, Optimizer, Restart, Scratch, SoftInputs
from lrd_jax.train.data import make_batches
from lrd_jax.train.loss import canvas_logits, draw_masks, loss_fn, refined_loss
from lrd_jax.train.soft import draw_feedback, feed_back
from lrd_jax.train.start import new_model_config, new_params
from lrd_jax.train.step import make_optimizer, make_step

pytestmark = pytest.mark.slow

SIZES = Scratch(num_layers=2, embed_dim=16, mlp_dim=32, num_heads=2, max_length=64)
THROUGH = SoftInputs(through=True, every_depth=True, min_r_f=0.5, all_masked=0.4)
KINDS = {
    "today's": SoftInputs(),
    "every depth": SoftInputs(every_depth=True, share=0.7),
    "through": SoftInputs(through=True, min_r_f=0.5, share=0.7),
    "through every depth": THROUGH,
    "one refinement": dataclasses.replace(THROUGH, refinements=1, top_p=1.0),
}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(tuple(TASKS.values()))


@pytest.fixture(scope="module")
def model(tokenizer):
    return Model(new_model_config(SIZES, tokenizer))


@pytest.fixture(scope="module")
def params(model):
    """Peaked enough that nuclei are of all sizes."""
    params = new_params(model, jax.random.key(0))
    return params | {"head": 3 * params["head"]}


@pytest.fixture(scope="module")
def batch(tokenizer, model):
    data = Data(tasks=("words", "code"), buckets=(Bucket(prompt=24, canvas=12, batch=3),))
    return make_batches(data, tokenizer, 0, model.config)(0)


value_and_gradient = jax.jit(jax.value_and_grad(refined_loss), static_argnums=(1, 7))


def drawn(batch, config, seed=3):
    mask_key, soft_key = jax.random.split(jax.random.key(seed))
    B, G = batch.answer.shape
    return (*draw_masks(mask_key, B, G, 1e-3, config.all_masked), *draw_feedback(soft_key, B, config))


def twin(params, model, batch, t, masked, count, r_f, config):
    """The loss by the formulas of the paper, a row at a time: sorted nuclei, every forward written out."""
    V, mask_id = model.config.vocab_size, model.config.mask_id

    def cut(x):
        return x if config.through else jax.lax.stop_gradient(x)

    total = 0.0
    for b in range(len(batch.answer)):
        row = jax.tree.map(lambda x, b=b: x[b : b + 1], batch)
        canvas = params["table"][jnp.where(masked[b], mask_id, row.answer[0])]
        losses = []
        for depth in range(config.refinements + 1):
            logits = canvas_logits(model, params, row, canvas[None])[0]
            nats = -jax.nn.log_softmax(logits)[jnp.arange(len(canvas)), row.answer[0]]
            losses.append(jnp.sum(jnp.where(masked[b], nats, 0.0)) / t[b] / len(canvas))
            p = jax.nn.softmax(logits.at[:, mask_id].set(-1e30))
            falling = -jnp.sort(-jax.lax.stop_gradient(p), axis=-1)
            crossing = jnp.argmax(jnp.cumsum(falling, axis=-1) >= config.top_p, axis=-1)
            floor = falling[jnp.arange(len(canvas)), crossing] if config.top_p < 1 else jnp.zeros(len(canvas))
            nucleus = jnp.where(p >= floor[:, None], p, 0.0)
            mean = nucleus @ cut(params["table"]) / jnp.sum(nucleus, axis=-1, keepdims=True)
            entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-37)), 0.0), axis=-1)
            alpha = (r_f[b, 0] * (1 - entropy / jnp.log(V)))[:, None]
            soft = (1 - cut(alpha)) * cut(params["table"])[mask_id] + cut(alpha) * cut(mean)
            canvas = jnp.where((masked[b] & (depth < count[b, 0]))[:, None], soft, canvas)
        total += sum(losses) / len(losses) if config.every_depth else losses[-1]
    return total / len(batch.answer)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_equal_a_plain_unrolled_twin(model, params, batch, kind):
    config = KINDS[kind]
    given = drawn(batch, config)
    got = value_and_gradient(params, model, batch, *given, config)
    wanted = jax.jit(jax.value_and_grad(twin), static_argnums=(1, 7))(params, model, batch, *given, config)
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-5)
    for one, two in zip(*map(jax.tree.leaves, (got[1], wanted[1])), strict=True):
        scale = float(jnp.max(jnp.abs(two)))
        np.testing.assert_allclose(one, two, atol=2e-4 * scale, rtol=2e-3)


def test_the_gradient_through_is_the_slope_of_the_loss(model, params, batch):
    config = dataclasses.replace(THROUGH, top_p=1.0)  # with no floor that a small change could move a token over
    given = drawn(batch, config)
    gradient = value_and_gradient(params, model, batch, *given, config)[1]
    direction = jax.tree.map(lambda g: g / optax.tree.norm(gradient), gradient)
    step = 2e-3
    ahead, behind = (jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step))
    one, other = (value_and_gradient(p, model, batch, *given, config)[0] for p in (ahead, behind))
    slope = (one - other) / (2 * step)
    np.testing.assert_allclose(slope, optax.tree.norm(gradient), rtol=2e-2)
    held = dataclasses.replace(config, through=False)
    without = value_and_gradient(params, model, batch, *given, held)[1]
    assert abs(float(optax.tree.vdot(without, direction)) / float(slope) - 1) > 5e-2


@pytest.mark.parametrize("kind", ["every depth", "through every depth"])
def test_computing_again_changes_no_number(model, params, batch, kind):
    given = drawn(batch, KINDS[kind])
    results = [
        value_and_gradient(params, model, batch, *given, dataclasses.replace(KINDS[kind], remat=remat))
        for remat in (True, False)
    ]
    for one, two in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_computing_again_takes_less_memory(model, params, batch):
    wide = jax.tree.map(lambda x: jnp.concatenate([x] * 8), batch)
    given = drawn(wide, THROUGH)

    def temporaries(remat):
        config = dataclasses.replace(THROUGH, remat=remat, refinements=6)
        step = jax.jit(jax.grad(refined_loss), static_argnums=(1, 7))
        return step.lower(params, model, wide, *given, config).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(remat=True) < 0.6 * temporaries(remat=False)


@pytest.mark.parametrize("kind", ["today's", "through every depth"])
def test_a_row_alone_has_the_loss_that_it_has_in_a_batch(model, params, batch, kind):
    given, config = drawn(batch, KINDS[kind]), KINDS[kind]
    loss = jax.jit(refined_loss, static_argnums=(1, 7))
    whole = loss(params, model, batch, *given, config)
    rows = [
        loss(params, model, *jax.tree.map(lambda x, b=b: x[b : b + 1], (batch, *given)), config)
        for b in range(len(batch.answer))
    ]
    np.testing.assert_allclose(np.mean(rows), whole, rtol=1e-5)
    assert np.ptp(rows) > 1e-3


def test_rows_that_take_no_part_have_the_plain_loss_at_every_depth(model, params, batch):
    config = dataclasses.replace(THROUGH, share=0.0, all_masked=0.0)
    key = jax.random.key(5)
    loss = jax.jit(loss_fn, static_argnums=(1, 4, 5))
    soft, plain = (loss(params, model, batch, key, 1e-3, settings) for settings in (config, None))
    np.testing.assert_allclose(soft, plain, rtol=1e-5)


def test_rows_are_masked_altogether_at_their_share():
    t, masked = draw_masks(jax.random.key(1), 4000, 8, 1e-3, 0.35)
    whole = np.asarray(t) == 1.0
    np.testing.assert_allclose(whole.mean(), 0.35, atol=0.02)
    assert np.asarray(masked)[whole].all()
    without, _ = draw_masks(jax.random.key(1), 4000, 8, 1e-3)
    np.testing.assert_array_equal(np.asarray(t)[~whole], np.asarray(without)[~whole])


def test_feedback_of_every_depth_runs_them_all():
    config = SoftInputs(every_depth=True, refinements=3, share=0.5, min_r_f=0.4, max_r_f=0.6)
    count, r_f = map(np.asarray, draw_feedback(jax.random.key(0), 2000, config))
    assert set(count.ravel()) == {0, 3}
    np.testing.assert_allclose(count.mean(), 1.5, atol=0.1)
    np.testing.assert_allclose([r_f.min(), r_f.mean(), r_f.max()], [0.4, 0.5, 0.6], atol=0.01)


def test_the_loss_falls(model, batch):
    mesh = make_mesh()
    start, step = make_step(
        model,
        Optimizer(peak_lr=1e-2, warmup_steps=2),
        mesh,
        steps=30,
        seed=0,
        min_mask_ratio=1e-3,
        soft_inputs=THROUGH,
    )
    state, losses = start(new_params(model, jax.random.key(0))), []
    for _ in range(30):
        state, loss = step(state, shard_batch(batch, mesh))
        losses.append(float(loss))
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_large_vocabulary_has_gradients_too():
    """Its nuclei are found another way, by a loop that has no gradient."""
    logits, table = jax.random.normal(jax.random.key(0), (1, 2, 8200)), jax.random.normal(jax.random.key(1), (8200, 4))

    @jax.jit
    @jax.grad
    def gradient(logits):
        masked, canvas = jnp.ones((1, 2), bool), jnp.zeros((1, 2, 4))
        fed = feed_back(8 * logits, canvas, masked, table, 1, r_f=jnp.ones((1, 1)), top_p=0.9)
        return jnp.sum(jnp.square(fed))

    got = np.asarray(gradient(logits))
    assert np.isfinite(got).all() and np.any(got) and not np.any(got[..., 1])


def test_the_rate_starts_anew_at_a_restart():
    config = Optimizer(peak_lr=1e-3, warmup_steps=10, restarts=(Restart(step=100, peak_lr=4e-3),))
    plain, other = Optimizer(peak_lr=1e-3, warmup_steps=10), Optimizer(peak_lr=4e-3, warmup_steps=10)

    def rates(config, steps):
        """Steps that a gradient of 1 makes: Adam's are as long as the rate."""
        optimizer = make_optimizer(dataclasses.replace(config, weight_decay=0.0), steps)
        params = {"w": jnp.ones(1)}

        def step(state, _):
            update, state = optimizer.update(params, state, params)
            return state, -update["w"][0]

        return np.asarray(jax.lax.scan(step, optimizer.init(params), None, steps)[1])

    got = rates(config, 300)
    np.testing.assert_allclose(got[:100], rates(plain, 100), rtol=1e-4)
    np.testing.assert_allclose(got[100:], rates(other, 200), rtol=1e-4)
    assert got[100] == 0 and got[110] == pytest.approx(4e-3, rel=1e-4)
