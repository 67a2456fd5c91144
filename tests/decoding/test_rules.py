"""Beliefs, mixing and commit rules by themselves, against plain NumPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
import twin_field

from lrd_jax.decoding.parts import mix as mixing
from lrd_jax.decoding.parts.commit import basic as commit
from lrd_jax.decoding.parts.commit import parallel
from lrd_jax.decoding.parts.commit.rule import best, ranks
from lrd_jax.decoding.parts.commit.schedule import dream_fraction, dream_fractions, llada_count
from lrd_jax.decoding.parts.commit.settling import Reopening, Settled
from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.vocab import belief
from lrd_jax.decoding.vocab.nucleus import Within, in_nucleus, mean_of_nucleus

SEEDS = range(5)


def some_logits(seed, shape=(2, 5, 40), scale=4.0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * scale, jnp.float32)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_beliefs(seed, scale):
    logits = some_logits(seed, scale=scale).at[..., 3].set(-jnp.inf)
    got, p = belief.read(logits, margin=True), softmax(logits)
    entropy = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)
    ordered = np.sort(p, axis=-1)
    np.testing.assert_allclose(got.entropy, entropy, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.confidence, ordered[..., -1], rtol=1e-5)
    np.testing.assert_allclose(got.margin, ordered[..., -1] - ordered[..., -2], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(got.token, np.argmax(logits, axis=-1))
    assert np.all(got.entropy >= -1e-5) and np.all(got.entropy <= np.log(logits.shape[-1]) + 1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_divergence_of_two_beliefs(seed):
    a, b = some_logits(seed).at[..., 0].set(-jnp.inf), some_logits(seed + 100).at[..., 0].set(-jnp.inf)
    p, q = softmax(a)[..., 1:], softmax(b)[..., 1:]
    log_z_a, log_z_b = belief.log_z(a), belief.log_z(b)
    np.testing.assert_allclose(belief.kl(a, log_z_a, b, log_z_b), np.sum(p * np.log(p / q), axis=-1), rtol=1e-4)
    np.testing.assert_array_equal(belief.kl(a, log_z_a, a, log_z_a), 0.0)


def nucleus(p, top_p):
    """The smallest set of most probable tokens whose mass reaches top_p."""
    chosen = np.zeros(p.shape, bool)
    for index in np.ndindex(p.shape[:-1]):
        order = np.argsort(-p[index], kind="stable")
        n = np.searchsorted(np.cumsum(p[index][order]), top_p) + (top_p > 0) if top_p < 1 else p.shape[-1]
        chosen[index][order[:n]] = True
    return chosen


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("top_p", [0.0, 0.2, 0.5, 0.9, 0.999, 1.0])
def test_nucleus(seed, top_p):
    p = softmax(some_logits(seed))
    np.testing.assert_array_equal(in_nucleus(jnp.asarray(p, jnp.float32), top_p), nucleus(p, top_p))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("most", [3, 50])
def test_tokens_within_a_mass(seed, most):
    """The most probable ones whose mass stays within it, never without the first; and their mean and mass."""
    p = softmax(some_logits(seed, (1, 60, 40)) * np.linspace(0.1, 2, 60)[:, None])
    table = np.random.default_rng(seed).normal(size=(40, 6))
    mass = np.clip(2 * p.max(axis=-1), 0.2, 0.9)
    p32 = jnp.asarray(p, jnp.float32)
    floor = Within(jnp.asarray(mass, jnp.float32), most).floor(p32)
    mean, total = mean_of_nucleus(p32, floor, jnp.asarray(table, jnp.float32))
    for i, row in enumerate(p[0]):
        order = np.argsort(-row)[:most]
        chosen = order[np.cumsum(row[order]) <= mass[0, i]]
        chosen = order[:1] if len(chosen) == 0 else chosen
        np.testing.assert_allclose(total[0, i, 0], row[chosen].sum(), rtol=1e-5)
        np.testing.assert_allclose(mean[0, i], row[chosen] @ table[chosen] / row[chosen].sum(), atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_jensen_shannon_divergences(seed):
    a, b = some_logits(seed).at[..., 0].set(-jnp.inf), some_logits(seed + 100)
    p, q = softmax(a), softmax(b)
    got, of_none = belief.js(a, belief.log_z(a), b, belief.log_z(b)), belief.js_of_none(a, belief.log_z(a))
    for index in np.ndindex(got.shape):
        np.testing.assert_allclose(got[index], twin_field.js_of(p[index], q[index]), rtol=1e-4)
        np.testing.assert_allclose(of_none[index], twin_field.js_of(p[index], 0 * p[index]), rtol=1e-4)
    np.testing.assert_allclose(of_none, np.log(2) / 2, atol=1e-4)


def test_tied_tokens_are_in_together():
    p = jnp.asarray([0.25, 0.25, 0.25, 0.25], jnp.float32)
    assert in_nucleus(p, 0.3).tolist() == [True] * 4


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("r_f", "top_p"), [(0.15, 0.9), (1.0, 1.0), (0.5, 0.2), (0.0, 0.9), (0.7, 0.0)])
def test_soft_embeddings_are_equations_3_and_4(seed, r_f, top_p):
    logits, table = some_logits(seed), some_logits(seed + 50, (40, 6), 1.0)
    p, e = softmax(logits), np.asarray(table, np.float64)
    entropy = -np.sum(p * np.log(p), axis=-1)
    inside = np.where(nucleus(p, top_p), p, 0.0)
    mass = inside.sum(axis=-1, keepdims=True)
    alpha = np.where(mass > 0, r_f * (1 - entropy[..., None] / np.log(40)), 0.0)
    want = (1 - alpha) * e[7] + alpha * (inside / np.where(mass > 0, mass, 1)) @ e
    got = mixing.soft_embeddings(logits, belief.read(logits).entropy, table, 7, r_f, top_p)
    np.testing.assert_allclose(got, want, atol=2e-5)
    # A mixture of embeddings lies within their hull.
    assert np.all(got <= table.max(axis=0) + 1e-5) and np.all(got >= table.min(axis=0) - 1e-5)


def test_renaming_tokens_changes_no_mixture():
    logits, table = some_logits(1), some_logits(2, (40, 6), 1.0)
    order = np.random.default_rng(3).permutation(40)
    entropy = belief.read(logits).entropy
    here = mixing.soft_embeddings(logits, entropy, table, 7, 0.4, 0.8)
    mask_id = int(np.flatnonzero(order == 7)[0])
    there = mixing.soft_embeddings(logits[..., order], entropy, table[order], mask_id, 0.4, 0.8)
    np.testing.assert_allclose(here, there, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_best_positions(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 4, (6, 9)).astype(np.float32)  # many ties
    masked, count = rng.random((6, 9)) < 0.6, rng.integers(0, 10, 6)
    want = np.zeros_like(masked)
    for row in range(6):
        order = sorted(np.flatnonzero(masked[row]), key=lambda i: (-score[row, i], i))
        want[row, order[: count[row]]] = True
    np.testing.assert_array_equal(best(jnp.asarray(score), jnp.asarray(masked), jnp.asarray(count)), want)


def test_schedules_are_the_references():
    import goldens

    for masks, steps, *counts in goldens.arrays("llada.functions")["num_transfer_tokens"]:
        assert llada_count(masks, steps, np.arange(steps)).tolist() == [c for c in counts if c >= 0]
    for masks, steps, *counts in goldens.arrays("dream.functions")["schedule"]:
        left, got = masks, []
        for fraction in dream_fractions(steps):
            got.append(int(np.float32(left) * fraction))
            left -= got[-1]
        assert got == [c for c in counts if c >= 0][: len(got)]


def test_rows_of_different_steps_find_their_fractions_in_one_table():
    steps, step = np.divmod(np.arange(12 * 12), 12)
    got = dream_fraction(jnp.asarray(steps + 1), jnp.asarray(step), most=12)
    np.testing.assert_array_equal(got, [dream_fractions(n + 1)[min(i, n)] for n, i in zip(steps, step, strict=True)])


def sight_of(logits, masked):
    """The first forward of a decode whose window is the canvas."""
    B, W, V = logits.shape
    seen = belief.read(logits, margin=True)
    zeros = jnp.zeros(B, jnp.int32)
    return Sight(
        masked=masked,
        exists=None,
        belief=seen,
        proposal=seen,
        kl=None,
        divergence=jnp.full(B, jnp.inf),
        running=jnp.ones(B, bool),
        committing=jnp.ones(B, bool),
        forwards=zeros,
        block_forwards=zeros,
        commits=zeros,
        refined=zeros,
        start=zeros,
        length=W,
        keys=None,
        window=W,
        vocab_size=V,
    )


def chosen_by(make, number, sight):
    """What a rule of one number commits. The number is traced: the references' go beyond what makes sense here."""
    return jax.jit(lambda number: make(number)(sight, ())[0].commit)(number)


@pytest.mark.parametrize(
    ("threshold", "name"), [(0.9, "thr0.9"), (0.5, "thr0.5"), (0.3, "thr0.3"), (0.05, "thr0.05"), (1.1, "thr1.1")]
)
def test_threshold_is_fast_dllms(threshold, name):
    import goldens

    stored = goldens.arrays("llada.functions")
    sight = sight_of(jnp.asarray(stored["transfer.logits"]), jnp.asarray(stored["transfer.mask_index"]))
    chosen = chosen_by(commit.Threshold, threshold, sight)
    np.testing.assert_array_equal(chosen, stored[f"transfer.{name}.index"])


def test_gumbel_draws_are_lladas():
    """argmax of exp(logits) / (-log u)^T, LLaDA's form, is the argmax of logits / T + Gumbel noise."""
    import goldens

    stored = goldens.arrays("llada.functions")
    for T in (0.5, 1.0):
        noise = -np.log(-np.log(stored[f"gumbel_T{T}.u_f64"]))
        np.testing.assert_array_equal(
            np.argmax(stored["gumbel.logits"] / T + noise, axis=-1), stored[f"gumbel_T{T}.argmax"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("alg", ["maskgit_plus", "topk_margin", "entropy"])
@pytest.mark.parametrize(
    ("name", "top_p", "top_k"),
    [
        ("pNone_kNone", None, None),
        ("p0.9_kNone", 0.9, None),
        ("p0.5_kNone", 0.5, None),
        ("pNone_k5", None, 5),
        ("p0.95_k10", 0.95, 10),
    ],
)
def test_filters_are_dreams(alg, name, top_p, top_k):
    import goldens

    from lrd_jax.decoding.vocab.sampling import filtered

    stored = goldens.arrays("dream.functions")
    q = filtered(jnp.asarray(stored["sample.logits"])[None], 0.0, top_p, top_k)
    seen = belief.read(q, margin=True)
    score = {"maskgit_plus": seen.confidence, "topk_margin": seen.margin, "entropy": -seen.entropy}[alg][0]
    np.testing.assert_allclose(score, stored[f"sample.{alg}_{name}.conf"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(seen.token[0], stored[f"sample.{alg}_{name}.x0"])


def random_sight(seed):
    """Beliefs of very different sureness, some positions committed."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(4, 9, 12)) * rng.choice([0.5, 4.0, 12.0], (4, 9, 1))
    masked = rng.random((4, 9)) < 0.7
    masked[:, 4] = True  # a rule is only asked where something is masked
    return sight_of(jnp.asarray(logits, jnp.float32), jnp.asarray(masked)), softmax(logits)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bound", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize(
    ("make", "slow"),
    [
        (parallel.Factor, twin.factor),
        (parallel.Margin, twin.margin),
        (parallel.EntropyBound, twin.entropy_bound),
        (commit.Threshold, twin.fast_threshold),
    ],
)
def test_parallel_rules_equal_the_slow_twins(seed, bound, make, slow):
    sight, p = random_sight(seed)
    chosen = chosen_by(make, bound, sight)
    for row in range(len(p)):
        entropy = np.array([twin.entropy_of(q) for q in p[row]])
        seen = SimpleNamespace(probs=p[row], conf=p[row].max(axis=-1), entropy=entropy)
        np.testing.assert_array_equal(chosen[row], slow(bound)(seen, np.asarray(sight.masked[row]), 0))


@pytest.mark.parametrize("order", ["entropy", "confidence", "margin"])
def test_the_entropy_bound_holds_for_what_is_committed(order):
    """And one position more, in the same order, would break it."""
    sight, _ = random_sight(0)
    change, _ = parallel.EntropyBound(1.0, order)(sight, ())
    chosen = change.commit
    score = -sight.belief.entropy if order == "entropy" else getattr(sight.belief, order)
    rank = np.asarray(ranks(score, sight.masked))
    for row in range(len(rank)):
        entropy, n = np.asarray(sight.belief.entropy[row]), int(chosen[row].sum())
        prefix = [entropy[(rank[row] < k) & sight.masked[row]] for k in (n, n + 1)]
        np.testing.assert_array_equal(chosen[row], (rank[row] < n) & sight.masked[row])
        assert n == 1 or prefix[0].sum() - prefix[0].max() <= 1.0
        assert len(prefix[1]) == n or prefix[1].sum() - prefix[1].max() > 1.0


def test_only_what_the_rule_committed_and_another_token_now_takes_is_reopened():
    """Positions: masked, given, unchanged, changed but unsure, changed, changed and reopened before."""
    logits = np.zeros((1, 6, 8), np.float32)
    logits[0, :, 3] = [9, 9, 9, 1, 9, 9]
    rule = Reopening(commit.LowestEntropy(), 0.5)
    tokens, left = [[-1, -1, 3, 2, 2, 2]], [[1, 1, 1, 1, 1, 0]]
    state = rule.start(1, 6) | {"tokens": jnp.asarray(tokens), "left": jnp.asarray(left)}
    masked = jnp.arange(6)[None] == 0
    change, after = rule(sight_of(jnp.asarray(logits), masked), state)
    assert change.commit.tolist() == masked.tolist()
    assert change.reopen.tolist() == [[False, False, False, False, True, False]]
    assert after["tokens"].tolist() == [[3, -1, 3, 2, 2, 2]]
    assert after["left"].tolist() == [[1, 1, 1, 1, 0, 0]]


def test_what_does_not_settle_is_committed_after_the_wait_and_no_sooner():
    sight, _ = random_sight(0)
    sight = sight.replace(kl=jnp.full(sight.masked.shape, jnp.inf))
    rule = Settled(wait=3)
    state, counts = rule.start(4, 9), []
    for _ in range(6):
        change, state = rule(sight, rule.observe(sight, state))
        counts.append(np.sum(change.commit, axis=-1).tolist())
    assert counts == [[0] * 4, [0] * 4, [1] * 4] * 2
