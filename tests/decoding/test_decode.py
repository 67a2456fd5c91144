"""The loop where no golden reaches: against the slow twin, row by row, at odd shapes, and at its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
from goldens import GOLDEN
from quick import some_quick
from twin_model import TwinModel

from lrd_jax import (
    KLASS,
    All,
    DecodeConfig,
    Divergence,
    Draw,
    Dream,
    DreamThreshold,
    EntropyBound,
    Factor,
    LowestEntropy,
    Margin,
    Mix,
    PrefixCache,
    Refine,
    Reopening,
    Scheduled,
    Settled,
    Stop,
    StopReason,
    Threshold,
    make_decode,
)
from lrd_jax.decoding.loop import run_decode

pytestmark = pytest.mark.usefixtures("users_compiler")
FAMILIES = ("tiny-llada-gqa", "tiny-dream")


@pytest.fixture(scope="module")
def twins():
    return {name: TwinModel(GOLDEN / name) for name in FAMILIES}


def prompts(seed, lengths, vocab=300):
    """Random prompts of these lengths, left-padded: ids and mask `[B, P]`."""
    rng = np.random.default_rng(seed)
    P = max(lengths)
    ids, mask = np.full((len(lengths), P), 382, np.int32), np.zeros((len(lengths), P), bool)
    for row, n in enumerate(lengths):
        ids[row, P - n :], mask[row, P - n :] = rng.integers(0, vocab, n), True
    return ids, mask


# Settings that the goldens leave out: (of the loop, of the twin). Feedback is kept small: it makes a random model
# chaotic, and float32 then leaves float64 behind after a few dozen forwards.
CASES = {
    "guarded by entropy": (
        {"mix": Mix(), "refine": Refine(), "stop": Stop(0.5, max_entropy=3.0)},
        {"mix": (0.15, 0.9), "refine": (0.1, 20, "block"), "stop": (0.5, 3.0)},
    ),
    "guarded by confidence, blocks": (
        {"block_length": 4, "mix": Mix(0.4, 0.5), "refine": Refine(0.3, 3), "stop": Stop(0.5, min_confidence=0.2)},
        {"block_length": 4, "mix": (0.4, 0.5), "refine": (0.3, 3, "block"), "stop": (0.5, None, 0.2)},
    ),
    "refinement before every commit": (
        {"mix": Mix(0.1), "refine": Refine.times(2)},
        {"mix": (0.1, 0.9), "refine": (0.0, 3, "commit")},
    ),
    "refined until settled before every commit, stopping": (
        {"block_length": 6, "mix": Mix(), "refine": Refine.auto(0.2, 4), "stop": Stop(0.02)},
        {"block_length": 6, "mix": (0.15, 0.9), "refine": (0.2, 4, "commit"), "stop": (0.02,)},
    ),
    "guidance, threshold, KL of what is masked": (
        {
            "mix": Mix(),
            "refine": Refine(0.05, 5),
            "cfg_scale": 0.7,
            "commit": LowestEntropy(2, 0.5),
            "divergence": Divergence("sum", "masked"),
        },
        {
            "mix": (0.15, 0.9),
            "refine": (0.05, 5, "block"),
            "cfg_scale": 0.7,
            "commit": lambda: twin.lowest_entropy(2, 0.5),
            "divergence": ("sum", "masked"),
        },
    ),
    "factor": ({"commit": Factor(3.0)}, {"commit": lambda: twin.factor(3.0)}),
    "factor under LRD": (
        {"mix": Mix(0.1), "refine": Refine(0.2, 4), "stop": Stop(0.01), "commit": Factor(3.0)},
        {
            "mix": (0.1, 0.9),
            "refine": (0.2, 4, "block"),
            "stop": (0.01,),
            "commit": lambda: twin.factor(3.0),
        },
    ),
    "margin": ({"block_length": 6, "commit": Margin(0.1)}, {"block_length": 6, "commit": lambda: twin.margin(0.1)}),
    "margin under LRD": (
        {"mix": Mix(0.1), "refine": Refine(0.2, 4), "commit": Margin(0.1)},
        {"mix": (0.1, 0.9), "refine": (0.2, 4, "block"), "commit": lambda: twin.margin(0.1)},
    ),
    "entropy bound": ({"commit": EntropyBound(4.0)}, {"commit": lambda: twin.entropy_bound(4.0)}),
    "entropy bound under LRD": (
        {"mix": Mix(0.1), "refine": Refine(0.2, 4), "commit": EntropyBound(4.0)},
        {"mix": (0.1, 0.9), "refine": (0.2, 4, "block"), "commit": lambda: twin.entropy_bound(4.0)},
    ),
    "KLASS": (
        {"block_length": 6, "commit": KLASS(0.3, 0.1, 2)},
        {"block_length": 6, "commit": lambda: twin.Klass(0.3, 0.1, 2)},
    ),
    "KLASS under LRD": (
        {"block_length": 6, "mix": Mix(0.1), "refine": Refine(0.2, 4), "commit": KLASS(0.3, 0.1, 2)},
        {
            "block_length": 6,
            "mix": (0.1, 0.9),
            "refine": (0.2, 4, "block"),
            "commit": lambda: twin.Klass(0.3, 0.1, 2),
        },
    ),
    "settle, then all": (
        {"block_length": 6, "mix": Mix(0.1), "refine": Refine(0.05, 6), "commit": All()},
        {"block_length": 6, "mix": (0.1, 0.9), "refine": (0.05, 6, "block"), "commit": lambda: twin.everything},
    ),
    "settle unless sure, then all": (
        {"block_length": 3, "mix": Mix(0.3), "refine": Refine(0.001, 8, min_confidence=0.14), "commit": All()},
        {
            "block_length": 3,
            "mix": (0.3, 0.9),
            "refine": (0.001, 8, "block", 0.14),
            "commit": lambda: twin.everything,
        },
    ),
    "settle unless sure, before every commit": (
        {"mix": Mix(0.1), "refine": Refine(0.001, 4, "commit", 0.16), "commit": LowestEntropy(2)},
        {"mix": (0.1, 0.9), "refine": (0.001, 4, "commit", 0.16), "commit": lambda: twin.lowest_entropy(2)},
    ),
    "settled by position": (
        {"block_length": 6, "mix": Mix(0.1), "commit": Settled(0.3, 0.05, 1, 3)},
        {"block_length": 6, "mix": (0.1, 0.9), "commit": lambda: twin.Settling(0.3, 0.05, 1, 3)},
    ),
    "settled twice running under LRD": (
        {"mix": Mix(0.1), "refine": Refine(0.2, 3), "stop": Stop(0.01), "commit": Settled(0.1, 0.0, 2, 2)},
        {
            "mix": (0.1, 0.9),
            "refine": (0.2, 3, "block"),
            "stop": (0.01,),
            "commit": lambda: twin.Settling(0.1, 0.0, 2, 2),
        },
    ),
    "sure, whatever has moved": (
        {"mix": Mix(0.1), "commit": Settled(0.0, 0.2, 0, 3)},
        {"mix": (0.1, 0.9), "commit": lambda: twin.Settling(0.0, 0.2, 0, 3)},
    ),
    "reopened": (
        {"block_length": 6, "mix": Mix(0.1), "commit": Reopening(LowestEntropy(2), 0.02, 2)},
        {
            "block_length": 6,
            "mix": (0.1, 0.9),
            "commit": lambda: twin.Reopening(twin.lowest_entropy(2), 0.02, 2),
        },
    ),
    "reopened while others settle": (
        {"mix": Mix(0.1), "refine": Refine(0.2, 3), "commit": Reopening(Settled(0.1, 0.0, 1, 2), 0.05)},
        {
            "mix": (0.1, 0.9),
            "refine": (0.2, 3, "block"),
            "commit": lambda: twin.Reopening(twin.Settling(0.1, 0.0, 1, 2), 0.05, 1),
        },
    ),
    "Fast-dLLM's rule under LRD": (
        {"block_length": 3, "mix": Mix(), "refine": Refine(0.1, 2), "commit": Threshold(0.3)},
        {
            "block_length": 3,
            "mix": (0.15, 0.9),
            "refine": (0.1, 2, "block"),
            "commit": lambda: twin.fast_threshold(0.3),
        },
    ),
}


@pytest.mark.parametrize("case", some_quick(CASES, 2))
def test_equals_the_slow_twin(checkpoint, twins, case):
    """A batch of mixed prompt lengths, one of a single token, against one bare row of the twin at a time.

    The goldens hold both families to the same step, so the cases take turns between them.
    """
    name = FAMILIES[list(CASES).index(case) % len(FAMILIES)]
    settings, twin_settings = CASES[case]
    model, params = checkpoint(name)
    ids, mask = prompts(7, (9, 1, 5))
    decode = make_decode(model, DecodeConfig(12, trace=True, **settings))
    result = decode(params, ids, mask)
    for row in range(len(ids)):
        make_rule = {"commit": twin_settings["commit"]()} if "commit" in twin_settings else {}
        want = twin.twin_decode(twins[name], ids[row, mask[row]], gen_length=12, **{**twin_settings, **make_rule})
        each = 2 if "cfg_scale" in settings else 1
        np.testing.assert_array_equal(result.tokens[row], want.tokens)
        assert int(result.forwards[row]) == each * want.forwards
        assert int(result.refine_forwards[row]) == each * want.refine_forwards
        assert StopReason(int(result.stop_reason[row])).name.lower() == want.stop_reason
        kl = result.trace.divergence[row, : want.forwards]
        np.testing.assert_allclose(kl, want.kl, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", some_quick(FAMILIES, 1))
def test_end_of_text_stop_equals_the_slow_twin(checkpoint, twins, name):
    """Any token may play end-of-text: one that the plain decode commits early ends the row there."""
    model, params = checkpoint(name)
    ids, mask = prompts(3, (6,))
    plain = make_decode(model, DecodeConfig(12))(params, ids, mask).tokens[0]
    end = int(plain[3])
    altered = type(model)(model.config.from_json(model.config.to_json() | {"eos_id": end}))
    result = make_decode(altered, DecodeConfig(12, end_of_text=True))(params, ids, mask)
    want = twin.twin_decode(twins[name], ids[0], gen_length=12, end_ids=(end,))
    np.testing.assert_array_equal(result.tokens[0], want.tokens)
    assert int(result.forwards[0]) == want.forwards
    assert StopReason(int(result.stop_reason[0])).name.lower() == want.stop_reason


RULES = {
    "LRD": {"mix": Mix(), "refine": Refine(), "stop": Stop(0.3)},
    "lowest entropy": {"commit": LowestEntropy(3)},
    "threshold": {"commit": Threshold(0.2), "block_length": 4},
    "low confidence": {"commit": Scheduled(6), "block_length": 4},
    "random": {"commit": Scheduled(None, "random")},
    "drawn": {"commit": Scheduled(4), "draw": Draw(0.8)},
    "drawn by LRD": {"mix": Mix(), "refine": Refine(0.2, 4), "draw": Draw(1.0, top_p=0.9, top_k=20)},
    "maskgit_plus": {"commit": Dream("maskgit_plus", 6), "draw": Draw(0.5, top_p=0.9)},
    "topk_margin": {"commit": Dream("topk_margin", 6)},
    "entropy": {"commit": Dream("entropy", 12)},
    "origin": {"commit": Dream("origin", 6)},
    "Dream's threshold": {"commit": DreamThreshold(0.2, 4)},
    "guided": {"cfg_scale": 1.0},
    "factor": {"commit": Factor(2.0)},
    "margin": {"commit": Margin(0.1)},
    "entropy bound": {"commit": EntropyBound(3.0, "margin")},
    "KLASS": {"commit": KLASS(0.2, 0.1)},
    "all": {"mix": Mix(0.4), "refine": Refine(0.05, 6), "commit": All()},
    "settled": {"mix": Mix(0.1), "commit": Settled(0.1)},
    "reopening": {"mix": Mix(0.3), "commit": Reopening(LowestEntropy(2), 0.1)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", some_quick(RULES, 1))
def test_a_row_alone_equals_the_row_in_a_batch(checkpoint, name):
    model, params = checkpoint("tiny-dream" if "a" in name else "tiny-llada")
    ids, mask = prompts(11, (8, 1, 5, 3))
    keys = jax.random.split(jax.random.key(5), len(ids))
    decode = make_decode(model, DecodeConfig(12, **RULES[name]))
    together = decode(params, ids, mask, keys)
    for row in range(len(ids)):
        alone = decode(params, ids[row : row + 1], mask[row : row + 1], keys[row : row + 1])
        np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])
        assert int(together.forwards[row]) == int(alone.forwards[0])
        assert int(together.stop_reason[row]) == int(alone.stop_reason[0])


@pytest.mark.slow
def test_padding_changes_nothing(checkpoint):
    """All of the prompt padded but one token, against that token without padding."""
    model, params = checkpoint("tiny-dream")
    decode = make_decode(model, DecodeConfig(8, mix=Mix(), refine=Refine(0.1, 3)))
    padded = decode(params, np.full((1, 16), 5, np.int32), np.arange(16)[None] == 15)
    bare = decode(params, np.full((1, 1), 5, np.int32))
    np.testing.assert_array_equal(padded.tokens, bare.tokens)


def test_a_canvas_of_one(checkpoint):
    model, params = checkpoint("tiny-llada")
    result = make_decode(model, DecodeConfig(1, mix=Mix(), refine=Refine(), stop=Stop()))(params, np.array([[7]]))
    assert result.tokens.shape == (1, 1)
    assert int(result.forwards[0]) == int(result.refine_forwards[0]) >= 2


def test_a_mask_id_in_the_prompt_is_left_alone(checkpoint):
    model, params = checkpoint("tiny-llada")
    prompt = np.array([[4, model.config.mask_id, 9]])
    decode = make_decode(model, DecodeConfig(6))
    state = decode.advance(params, decode.start(params, prompt), 100)
    np.testing.assert_array_equal(state.prompt, prompt)
    assert int(state.forwards[0]) == 6


def test_a_committed_mask_id_is_a_token(checkpoint):
    """With the [MASK] logit let in and made the largest, it is committed like any other, once a position."""
    model, params = checkpoint("tiny-llada")
    flat = {**params, "head": jnp.zeros_like(params["head"])}
    first = type(model)(model.config.from_json(model.config.to_json() | {"mask_id": 0}))
    result = make_decode(first, DecodeConfig(5, suppress_mask=False))(flat, np.array([[4, 9]]))
    assert result.tokens[0].tolist() == [0] * 5  # all logits equal: the lowest id, which is [MASK]
    assert int(result.forwards[0]) == 5
    assert int(result.stop_reason[0]) == StopReason.FINISHED


def test_a_suppressed_mask_is_never_committed(checkpoint):
    model, params = checkpoint("tiny-llada")
    flat = {**params, "head": jnp.zeros_like(params["head"])}
    first = type(model)(model.config.from_json(model.config.to_json() | {"mask_id": 0}))
    assert make_decode(first, DecodeConfig(3))(flat, np.array([[4]])).tokens[0].tolist() == [1, 1, 1]


@pytest.mark.slow
def test_bounded_runs_add_up_to_the_whole(checkpoint):
    model, params = checkpoint("tiny-llada")
    ids, mask = prompts(2, (5, 3))
    decode = make_decode(model, DecodeConfig(12, mix=Mix(), refine=Refine(), stop=Stop(0.05), trace=True))
    state = decode.start(params, ids, mask)
    for n in (1, 2, 3, 1000):
        state = decode.advance(params, state, n)
    pieces, whole = decode.result(state), decode(params, ids, mask)
    jax.tree.map(np.testing.assert_array_equal, pieces, whole)


@pytest.mark.slow
def test_a_finished_row_never_changes(checkpoint):
    """Rows end at different forwards; what a row held when it ended is what it holds at the end."""
    model, params = checkpoint("tiny-llada")
    ids, mask = prompts(4, (6, 2, 9))
    decode = make_decode(model, DecodeConfig(12, mix=Mix(), commit=LowestEntropy(1, 0.4), trace=True))
    state, ended = decode.start(params, ids, mask), {}
    while bool(jnp.any(state.running)):
        state = decode.advance(params, state)
        for row in np.flatnonzero(~np.asarray(state.running)):
            ended.setdefault(row, jax.tree.map(lambda x, row=row: x[row], decode.result(state)))
    assert len({int(row.forwards) for row in ended.values()}) > 1
    for row, want in ended.items():
        got = jax.tree.map(lambda x, row=row: x[row], decode.result(state))
        jax.tree.map(np.testing.assert_array_equal, got, want)


def seen(forward, offset):
    """A look: what was masked, what would be committed, and where the row was, moved by an offset."""
    state = forward.before
    return {
        "masked": forward.sight.masked,
        "token": forward.sight.proposal.token,
        "at": (state.forwards + offset, state.block),
    }


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, PrefixCache()])
def test_a_watched_decode_is_the_decode_and_tells_every_forward(checkpoint, cache):
    """The slow twin is a decode in single forwards: what was masked before each, and what it committed there."""
    model, params = checkpoint("tiny-llada")
    ids, mask = prompts(4, (6, 2, 9))
    config = DecodeConfig(12, block_length=6, commit=LowestEntropy(1, 0.4), cache=cache, trace=True)
    decode = make_decode(model, config)
    result, record = decode.watch(seen, params, ids, mask, args=(jnp.arange(3) + 100,))
    jax.tree.map(np.testing.assert_array_equal, result, decode(params, ids, mask))
    assert len(set(result.forwards.tolist())) > 1
    state = decode.start(params, ids, mask)
    while np.any(state.running):
        before, state = jax.device_get(state.replace(cache=None)), decode.advance(params, state, 1)
        for row in np.flatnonzero(np.asarray(state.forwards) > before.forwards):
            step, block = int(before.forwards[row]), int(before.block[row])
            assert (int(record["at"][0][row, step]), int(record["at"][1][row, step])) == (step + 100 + row, block)
            window = slice(6 * block, 6 * block + 6)
            masked = np.asarray(before.masked[row, window])
            np.testing.assert_array_equal(record["masked"][row, step], masked)
            chosen = masked & ~np.asarray(state.masked[row, window])
            np.testing.assert_array_equal(record["token"][row, step][chosen], state.tokens[row, window][chosen])
    for row, forwards in enumerate(result.forwards.tolist()):
        assert not record["at"][0][row, forwards:].any()


@pytest.mark.slow
def test_numbers_and_keys_recompile_nothing(checkpoint):
    model, params = checkpoint("tiny-llada")
    ids, mask = prompts(1, (4, 4))

    def config(**numbers):
        r_f, top_p, tau, threshold, temperature = numbers.values()
        rule = LowestEntropy(1, threshold)
        return DecodeConfig(
            8, mix=Mix(r_f, top_p), refine=Refine(tau), stop=Stop(tau), commit=rule, draw=Draw(temperature)
        )

    before = run_decode.cache_size()
    decode = make_decode(model, config(r_f=0.1, top_p=0.9, tau=0.1, threshold=0.9, temperature=0.0))
    results = [decode(params, ids, mask, jax.random.key(0))]
    for seed, r_f in enumerate((0.0, 0.3, 1.0)):
        other = config(r_f=r_f, top_p=0.5, tau=0.01, threshold=0.4, temperature=0.7 * seed)
        results.append(decode(params, ids, mask, jax.random.key(seed), config=other))
    again = make_decode(model, config(r_f=0.2, top_p=0.8, tau=0.2, threshold=0.8, temperature=0.0))
    again(params, ids, mask, jax.random.key(5))
    assert run_decode.cache_size() == before + 1
    assert any((results[0].tokens != r.tokens).any() for r in results[1:])  # the numbers do reach the loop
    decode(params, ids[:1], mask[:1], jax.random.key(0))
    assert run_decode.cache_size() == before + 2


def test_another_structure_is_refused(checkpoint):
    model, params = checkpoint("tiny-llada")
    decode = make_decode(model, DecodeConfig(8, mix=Mix()))
    with pytest.raises(ValueError, match="structure"):
        decode(params, np.array([[1]]), config=DecodeConfig(8))


@pytest.mark.slow
def test_non_finite_logits_end_their_row_alone(checkpoint):
    """A token whose embedding is infinite poisons the row whose prompt holds it."""
    model, params = checkpoint("tiny-llada")
    poisoned = {**params, "table": params["table"].at[17].set(jnp.inf)}
    ids = np.array([[3, 17, 4], [3, 5, 4]], np.int32)
    config = DecodeConfig(6, refine=Refine(0.1, 2))
    result = make_decode(model, config)(poisoned, ids)
    healthy = make_decode(model, config)(params, ids[1:])
    assert result.stop_reason.tolist() == [StopReason.NON_FINITE, StopReason.FINISHED]
    assert result.tokens[0].tolist() == [model.config.mask_id] * 6
    assert int(result.forwards[0]) == 1
    np.testing.assert_array_equal(result.tokens[1], healthy.tokens[0])


def test_the_step_limit_leaves_masks(checkpoint):
    model, params = checkpoint("tiny-llada")
    result = make_decode(model, DecodeConfig(6, max_forwards=4))(params, np.array([[3, 5]]))
    assert result.stop_reason.tolist() == [StopReason.STEP_LIMIT]
    assert int(result.forwards[0]) == 4
    assert result.tokens[0].tolist().count(model.config.mask_id) == 2


@pytest.mark.slow
def test_temperature_zero_is_the_argmax_and_heat_reaches_the_softmax(checkpoint):
    """First tokens drawn over many keys are distributed as softmax(logits / T)."""
    model, params = checkpoint("tiny-llada")
    rows, T = 4000, 2.0
    prompt = np.tile(np.array([[3, 5, 8]], np.int32), (rows, 1))
    decode = make_decode(model, DecodeConfig(1, draw=Draw(T)))
    tokens = np.asarray(decode(params, prompt, key=jax.random.key(1)).tokens[:, 0])
    state = make_decode(model, DecodeConfig(1, trace=True))
    logits = np.asarray(state.advance(params, state.start(params, prompt[:1])).previous[0, 0])
    p = np.exp(logits / T - np.logaddexp.reduce(logits / T))
    top = np.argsort(-p)[:5]
    counted = np.array([(tokens == token).mean() for token in top])
    np.testing.assert_allclose(counted, p[top], atol=4 * np.sqrt(0.25 / rows))
    cold = decode(params, prompt[:2], config=DecodeConfig(1, draw=Draw(0.0)))
    assert cold.tokens[:, 0].tolist() == [int(logits.argmax())] * 2


@pytest.mark.slow
def test_end_tokens_suppressed_or_committed_last(checkpoint):
    """LLaDA#137: both settings act where LLaDA's authors meant them, at any temperature."""
    model, params = checkpoint("tiny-llada")
    ids, _ = prompts(9, (5,))
    plain = make_decode(model, DecodeConfig(8))
    state = plain.start(params, ids)
    first = plain.advance(params, state)
    where = int(np.flatnonzero(~np.asarray(first.masked[0]))[0])
    end = int(first.tokens[0, where])
    altered = type(model)(model.config.from_json(model.config.to_json() | {"eos_id": end}))
    key = jax.random.key(0)
    for heat in (0.0, 1e-3):
        never = make_decode(altered, DecodeConfig(8, logits_eos_inf=True, draw=Draw(heat)))(params, ids, key=key)
        assert end not in never.tokens[0].tolist()
        for rule in (LowestEntropy(), Scheduled()):
            last = make_decode(altered, DecodeConfig(8, confidence_eos_eot_inf=True, draw=Draw(heat), commit=rule))
            moved = last.advance(params, last.start(params, ids, key=key))
            assert int(moved.tokens[0, where]) == model.config.mask_id  # no longer the first
            assert int(last(params, ids, key=key).forwards[0]) == 8  # and still every position ends


BAD_PROMPTS = {
    "an empty row": (np.zeros((2, 3), int), np.array([[1, 1, 1], [0, 0, 0]], bool), "row 1 is empty"),
    "padding on the right": (np.zeros((1, 3), int), np.array([[1, 1, 0]], bool), "row 0 is padded on the right"),
    "no token": (np.zeros((1, 0), int), None, "at least one token"),
    "an id too large": (np.array([[0, 1], [2, 384]]), None, "row 1 holds id 384 at 1"),
    "a negative id": (np.array([[0, -1]]), None, "row 0 holds id -1"),
    "over the context": (np.zeros((1, 600), int), None, "shorten one of them by 96"),
    "one dimension": (np.zeros(3, int), None, "prompt\\[None\\]"),
    "floats": (np.zeros((1, 3)), None, "integer token ids"),
    "a mask of another shape": (np.zeros((1, 3), int), np.ones((1, 2), bool), "prompt's shape"),
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_bad_prompts_are_refused(checkpoint, case):
    prompt, mask, message = BAD_PROMPTS[case]
    model, params = checkpoint("tiny-llada")
    with pytest.raises(ValueError, match=message):
        make_decode(model, DecodeConfig(8))(params, prompt, mask)


def test_padding_may_hold_any_id(checkpoint):
    model, params = checkpoint("tiny-llada")
    result = make_decode(model, DecodeConfig(2))(params, np.array([[-1, 4]]), np.array([[False, True]]))
    assert int(result.forwards[0]) == 2


def test_a_canvas_over_the_context_is_refused(checkpoint):
    model, _ = checkpoint("tiny-llada")
    with pytest.raises(ValueError, match="no room for a prompt"):
        make_decode(model, DecodeConfig(512))


def test_old_style_keys_are_refused(checkpoint):
    model, params = checkpoint("tiny-llada")
    with pytest.raises(ValueError, match=r"jax\.random\.key"):
        make_decode(model, DecodeConfig(2))(params, np.array([[4]]), key=jnp.zeros(2, jnp.uint32))
