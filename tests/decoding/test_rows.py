"""What a row may have of its own: a length, given tokens, every number of the config; and what a rule may take back.

The slow twin of a mixed batch is each of its rows alone.
"""

import dataclasses

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
from quick import some_always, some_quick
from twin_model import TwinModel

from lrd_jax import (
    KLASS,
    All,
    Change,
    CommitRule,
    DecodeConfig,
    Divergence,
    Draw,
    Dream,
    DreamThreshold,
    DualCache,
    EntropyBound,
    Factor,
    FirstThen,
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
from lrd_jax.decoding.setting import count, setting

FAMILIES = ("tiny-llada-gqa", "tiny-dream")
LRD = {"mix": Mix(0.4, 0.8), "refine": Refine(0.2, 4), "stop": Stop(0.05)}


def batch(seed, lengths):
    """Left-padded random prompts: ids and mask `[B, P]`."""
    rng = np.random.default_rng(seed)
    P = max(lengths)
    ids = np.zeros((len(lengths), P), np.int32)
    for row, n in enumerate(lengths):
        ids[row, P - n :] = rng.integers(0, 300, n)
    return ids, np.arange(P) >= P - np.array(lengths)[:, None]


# Each: settings, and whether blocks of 4 are asked for (else each row is one block of its own length).
OWN_LENGTHS = {
    "plain": ({}, False),
    "lrd": ({**LRD, "commit": LowestEntropy(1, 0.3)}, True),
    "lrd, one block": ({**LRD, "divergence": Divergence("sum", "masked")}, False),
    "threshold": ({"commit": Threshold(0.2)}, True),
    "factor": ({"commit": Factor(2.0)}, True),
    "margin": ({"commit": Margin(0.2)}, False),
    "entropy bound": ({"commit": EntropyBound(1.0)}, False),
    "klass": ({"commit": KLASS(0.5, 0.1)}, True),
    "settle": ({"mix": Mix(0.3), "refine": Refine(0.1, 5), "commit": All()}, True),
    "settle unless sure": (
        {"mix": Mix(0.3), "refine": Refine(0.001, 5, min_confidence=0.14), "commit": LowestEntropy(3)},
        True,
    ),
    "settled": ({"mix": Mix(0.1), "commit": Settled(0.2)}, True),
    "reopening": ({"mix": Mix(0.3), "commit": Reopening(LowestEntropy(2), 0.1)}, False),
    "llada": ({"commit": Scheduled()}, True),
    "llada, one block, random": ({"commit": Scheduled(order="random")}, False),
    "llada, twelve steps": ({"commit": Scheduled(12)}, True),
    "dream": ({"commit": Dream()}, False),
    "dream, margins, twelve steps": ({"commit": Dream("topk_margin", 12)}, True),
    "dream, origin": ({"commit": Dream("origin")}, False),
    "dream threshold": ({"commit": DreamThreshold(0.2)}, True),
    "first then": ({"commit": FirstThen(Threshold(0.2))}, True),
    "guidance": ({"cfg_scale": 0.5}, True),
    "prefix cache": ({**LRD, "cache": PrefixCache(3)}, True),
    "dual cache": ({**LRD, "cache": DualCache()}, True),
    "end of text": ({"end_of_text": True}, True),
    "drawn": ({"draw": Draw(0.8, top_p=0.9, top_k=40)}, True),
    "chunks": ({**LRD, "logit_chunk": 3}, False),
}


@pytest.mark.parametrize("case", some_always(OWN_LENGTHS, 13))
def test_a_row_of_its_own_length_is_the_decode_of_that_gen_length(checkpoint, case):
    settings, blocks = OWN_LENGTHS[case]
    model, params = checkpoint(FAMILIES[list(OWN_LENGTHS).index(case) % 2])
    rng = np.random.default_rng(len(case))
    lengths = rng.permutation([4, 8, 12, 12]) if blocks else rng.permutation([1, 5, 7, 12])
    ids, mask = batch(len(case) + 1, rng.integers(1, 9, 4))
    keys = jax.random.split(jax.random.key(3), 4)
    config = DecodeConfig(12, block_length=4 if blocks else None, **settings)
    key = keys if config.draws else None
    mixed = make_decode(model, config)(params, ids, mask, key, length=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = make_decode(model, config.replace(gen_length=length))(
            params, ids[row : row + 1], mask[row : row + 1], None if key is None else key[row : row + 1]
        )
        np.testing.assert_array_equal(mixed.tokens[row, :length], alone.tokens[0], err_msg=f"length {length}")
        assert set(mixed.tokens[row, length:].tolist()) <= {model.config.eos_id}
        assert int(mixed.forwards[row]) == int(alone.forwards[0])
        assert int(mixed.refine_forwards[row]) == int(alone.refine_forwards[0])
        assert int(mixed.stop_reason[row]) == int(alone.stop_reason[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_lengths_of_the_whole_canvas_change_nothing(checkpoint, name):
    model, params = checkpoint(name)
    ids, mask = batch(2, (5, 1, 3))
    decode = make_decode(model, DecodeConfig(8, block_length=4, **LRD, trace=True))
    jax.tree.map(
        np.testing.assert_array_equal,
        decode(params, ids, mask, length=np.full(3, 8)),
        decode(params, ids, mask),
    )


# Numbers that two rows have of their own: settings of the first, of the second.
OWN_NUMBERS = {
    "mix": (lambda r_f, top_p: {**LRD, "mix": Mix(r_f, top_p)}, (0.2, 0.5), (0.5, 0.95)),
    "no mixture at r_f 0, all of it at top_p 1": (lambda r_f, top_p: {"mix": Mix(r_f, top_p)}, (0.0, 0.5), (0.7, 1.0)),
    "refine": (lambda tau: {**LRD, "refine": Refine(tau, 5)}, (2.0,), (0.01,)),
    "stop": (lambda tau, h: {**LRD, "stop": Stop(tau, h, 0.01)}, (0.5, 6.0), (0.01, 2.0)),
    "stop's confidence": (lambda c: {**LRD, "stop": Stop(0.5, min_confidence=c)}, (0.0,), (0.3,)),
    "lowest entropy": (lambda x: {"commit": LowestEntropy(1, x)}, (0.1,), (0.4,)),
    "threshold": (lambda x: {"commit": Threshold(x)}, (0.1,), (0.4,)),
    "factor": (lambda x: {"commit": Factor(x)}, (3.0,), (1.0,)),
    "margin": (lambda x: {"commit": Margin(x)}, (0.05,), (0.5,)),
    "entropy bound": (lambda x: {"commit": EntropyBound(x)}, (4.0,), (0.5,)),
    "klass": (lambda kl, c: {"commit": KLASS(kl, c)}, (1.0, 0.05), (0.1, 0.3)),
    "settle unless sure": (
        lambda tau, c: {"mix": Mix(0.3), "refine": Refine(tau, 5, min_confidence=c), "commit": LowestEntropy(3)},
        (0.1, 0.12),
        (0.001, 0.16),
    ),
    "settled": (lambda kl, c: {"mix": Mix(0.3), "commit": Settled(kl, c)}, (1.0, 0.05), (0.1, 0.3)),
    "reopening": (lambda x: {"mix": Mix(0.3), "commit": Reopening(LowestEntropy(2), x)}, (0.05,), (0.5,)),
    "dream threshold": (lambda x: {"commit": DreamThreshold(x, 4)}, (0.1,), (0.6,)),
    "first then": (lambda x: {"commit": FirstThen(Threshold(x))}, (0.1,), (0.4,)),
    "guidance": (lambda s: {"cfg_scale": s}, (0.0,), (1.5,)),
    "temperature": (lambda t: {"draw": Draw(t)}, (0.0,), (0.9,)),
    "filters": (lambda t, p: {"draw": Draw(t, top_p=p, top_k=30)}, (0.7, 0.5), (1.2, 0.95)),
    "dream's filters": (lambda t, p: {"draw": Draw(t, top_p=p), "commit": Dream()}, (0.0, 0.5), (1.2, 0.95)),
}


THREE = [(case, 3) for case in OWN_NUMBERS]
AS_MANY_AS_POSITIONS = [pytest.param(*one.values, 6, marks=one.marks) for one in some_always(OWN_NUMBERS, 5)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "rows"), [*THREE, *AS_MANY_AS_POSITIONS])
def test_a_batch_of_mixed_numbers_equals_each_row_alone(checkpoint, case, rows):
    make, *numbers = OWN_NUMBERS[case]
    model, params = checkpoint(FAMILIES[len(case) % 2])
    ids, mask = batch(len(case), np.random.default_rng(5).integers(1, 6, rows))
    keys = jax.random.split(jax.random.key(1), rows)

    def config(*numbers):
        return DecodeConfig(12, block_length=6, **make(*numbers))

    of_row = [numbers[row % 2] for row in range(rows)]
    mixed_config = config(*(np.array(column, np.float32) for column in zip(*of_row, strict=True)))
    mixed = make_decode(model, mixed_config)(params, ids, mask, keys)
    alone = make_decode(model, config(*numbers[0]))
    for row, own in enumerate(of_row):
        one = alone(params, ids[row : row + 1], mask[row : row + 1], keys[row : row + 1], config=config(*own))
        np.testing.assert_array_equal(mixed.tokens[row], one.tokens[0])
        assert int(mixed.forwards[row]) == int(one.forwards[0])


@pytest.mark.parametrize("shape", [(2,), (1,), (6,)])
def test_numbers_for_another_count_of_rows_are_refused(checkpoint, shape):
    model, params = checkpoint("tiny-llada")
    decode = make_decode(model, DecodeConfig(6, commit=Threshold(np.full(shape, 0.5))))
    ids, mask = batch(0, (3, 3, 3))
    with pytest.raises(
        ValueError, match=r"Threshold.threshold has shape \[.\]: a number, or one for each of the 3 rows"
    ):
        decode(params, ids, mask)


def given_canvas(seed, gen_length, share):
    """A canvas int `[1, G]` with random tokens given at a share of its positions."""
    rng = np.random.default_rng(seed)
    given = rng.random((1, gen_length)) < share
    return np.where(given, rng.integers(0, 300, (1, gen_length)), -1)


TWINS = {
    "plain": ({}, {}),
    "lrd": (LRD, {"mix": (0.4, 0.8), "refine": (0.2, 4, "block"), "stop": (0.05,)}),
    "llada": ({"commit": Scheduled(6)}, {"commit": twin.llada(2)}),
    "dual": ({"cache": DualCache(2)}, {"cache": ("dual", 2)}),
    "prefix": (
        {"commit": Threshold(0.2), "cache": PrefixCache()},
        {"commit": twin.fast_threshold(0.2), "cache": ("prefix", None)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("case", some_quick(TWINS, 1))
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_prefilled_canvas_equals_the_slow_twin(checkpoint, case, name, share):
    settings, twin_settings = TWINS[case]
    model, params = checkpoint(name)
    decode = make_decode(model, DecodeConfig(12, block_length=4, **settings))
    slow = TwinModel(goldens.GOLDEN / name)
    for seed in range(3):
        canvas = given_canvas(seed, 12, share)
        ids, mask = batch(seed, (4,))
        got = decode(params, ids, mask, canvas=canvas)
        want = twin.twin_decode(slow, ids[0], gen_length=12, block_length=4, canvas=canvas[0], **twin_settings)
        np.testing.assert_array_equal(got.tokens[0], want.tokens)
        np.testing.assert_array_equal(got.tokens[canvas >= 0], canvas[canvas >= 0])
        assert int(got.forwards[0]) == want.forwards
        assert StopReason(int(got.stop_reason[0])).name.lower() == want.stop_reason


def test_a_canvas_that_is_given_whole_is_done_without_a_forward(checkpoint):
    model, params = checkpoint("tiny-llada")
    ids, mask = batch(0, (3, 2))
    canvas = np.stack([np.arange(8), np.full(8, -1)])
    decode = make_decode(model, DecodeConfig(8, block_length=4))
    result = decode(params, ids, mask, canvas=canvas)
    assert result.forwards.tolist() == [0, 8]
    assert result.stop_reason.tolist() == [StopReason.FINISHED] * 2
    np.testing.assert_array_equal(result.tokens[0], canvas[0])
    np.testing.assert_array_equal(result.tokens[1], decode(params, ids, mask).tokens[1])


@pytest.mark.slow
def test_given_tokens_and_lengths_together(checkpoint):
    model, params = checkpoint("tiny-dream")
    ids, mask = batch(4, (3, 6))
    canvas = np.full((2, 12), -1)
    canvas[:, 1], canvas[1, 9] = 7, 11
    decode = make_decode(model, DecodeConfig(12, block_length=4, **LRD))
    mixed = decode(params, ids, mask, canvas=canvas, length=np.array([4, 12]))
    short = make_decode(model, DecodeConfig(4, block_length=4, **LRD))
    alone = short(params, ids[:1], mask[:1], canvas=canvas[:1, :4])
    np.testing.assert_array_equal(mixed.tokens[0, :4], alone.tokens[0])
    np.testing.assert_array_equal(mixed.tokens[1], decode(params, ids[1:], mask[1:], canvas=canvas[1:]).tokens[0])


BAD_REQUESTS = {
    "a length of another batch": ({"length": np.array([4])}, r"length must be integers \[2\]"),
    "a length of 0": ({"length": np.array([8, 0])}, "length of row 1 is 0: 1 to gen_length=8"),
    "a length over the canvas": ({"length": np.array([9, 8])}, "length of row 0 is 9"),
    "a length that blocks do not divide": ({"length": np.array([4, 6])}, "row 1 is 6: a multiple of block_length=4"),
    "lengths in floats": ({"length": np.array([4.0, 4.0])}, "length must be integers"),
    "a canvas of another shape": ({"canvas": np.full((2, 7), -1)}, r"canvas must be signed integers \[2, 8\]"),
    "an unsigned canvas": ({"canvas": np.zeros((2, 8), np.uint32)}, "signed integers"),
    "an id outside the vocabulary": ({"canvas": np.full((2, 8), 9999)}, "canvas row 0 holds an id at 0 outside"),
    "a token beyond the length": (
        {"canvas": np.array([[-1] * 8, [-1] * 7 + [3]]), "length": np.array([4, 4])},
        "canvas row 1 gives tokens beyond the row's length of 4",
    ),
    "words for a key": ({"key": "seed"}, "key must be a jax.random.key or 2 of them"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_are_refused(checkpoint, case):
    arguments, message = BAD_REQUESTS[case]
    model, params = checkpoint("tiny-llada")
    ids, mask = batch(0, (3, 2))
    with pytest.raises(ValueError, match=message):
        make_decode(model, DecodeConfig(8, block_length=4))(params, ids, mask, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        DecodeConfig(4, draw=Draw(0.5)),
        DecodeConfig(4, commit=Scheduled(order="random")),
        DecodeConfig(4, commit=Dream("origin")),
        DecodeConfig(4, commit=FirstThen(Dream("origin"))),
        DecodeConfig(4, draw=Draw(np.array([0.0, 0.5]))),
    ],
)
def test_a_draw_without_a_key_is_refused(checkpoint, config):
    model, params = checkpoint("tiny-llada")
    ids, mask = batch(0, (3, 2))
    decode = make_decode(model, config)
    for call in (decode, decode.start):
        with pytest.raises(ValueError, match=r"draws at random .* pass key=jax\.random\.key\(seed\)"):
            call(params, ids, mask)
    decode(params, ids, mask, jax.random.key(0))


def test_the_state_of_another_decoder_is_refused(checkpoint):
    model, params = checkpoint("tiny-llada")
    ids, mask = batch(0, (3, 2))
    state = make_decode(model, DecodeConfig(4)).start(params, ids, mask)
    for other in (DecodeConfig(8), DecodeConfig(4, commit=Scheduled())):
        with pytest.raises(ValueError, match="state belongs to a decoder of another structure"):
            make_decode(model, other).advance(params, state)
    with pytest.raises(ValueError, match="must be a DecodeState of this decoder, got ndarray"):
        make_decode(model, DecodeConfig(4)).advance(params, np.zeros(3))


def test_advance_consumes_its_state_and_nothing_of_the_callers(checkpoint):
    model, params = checkpoint("tiny-llada")
    ids, mask = (jnp.asarray(x) for x in batch(0, (3, 2)))
    keys = jax.random.split(jax.random.key(0), 2)
    decode = make_decode(model, DecodeConfig(4, draw=Draw(0.5)))
    state = decode.start(params, ids, mask, keys)
    decode.advance(params, state)
    assert state.tokens.is_deleted()
    assert not any(x.is_deleted() for x in jax.tree.leaves((params, ids, mask, keys)))


@setting
class Doubts(CommitRule):
    """Commits the surest position; on every third forward reopens the committed position that is least sure now."""

    limit: int = count(default=20)

    @property
    def reopens(self):
        return True

    def max_commits(self, gen_length, block_length):
        return self.limit

    def __call__(self, sight, state):
        change, _ = LowestEntropy()(sight, ())
        least = jnp.where(sight.masked, -1.0, sight.belief.entropy)
        doubted = (jnp.arange(sight.window) == jnp.argmax(least, axis=-1)[:, None]) & ~sight.masked
        return Change(change.commit, doubted & (sight.commits % 3 == 2)[:, None]), state


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("case", some_quick(["plain", "lrd", "dual"], 1))
def test_a_rule_that_reopens_equals_the_slow_twin(checkpoint, case, name):
    """Reopened positions hold the mask id and feed back like any masked one; the row ends at the rule's limit."""
    settings, twin_settings = TWINS[case]
    model, params = checkpoint(name)
    decode = make_decode(model, DecodeConfig(8, block_length=4, commit=Doubts(), **settings))
    slow = TwinModel(goldens.GOLDEN / name)
    ids, mask = batch(6, (4, 2))
    got = decode(params, ids, mask)
    for row in range(2):
        prompt = ids[row][mask[row]]
        want = twin.twin_decode(
            slow,
            prompt,
            gen_length=8,
            block_length=4,
            commit=twin.doubts,
            limit=decode.config.step_limit,
            **twin_settings,
        )
        np.testing.assert_array_equal(got.tokens[row], want.tokens)
        assert int(got.forwards[row]) == want.forwards
        assert StopReason(int(got.stop_reason[row])).name.lower() == want.stop_reason


@pytest.mark.slow
@pytest.mark.parametrize("rule", [LowestEntropy(2), All(), Settled(0.0, wait=3)], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("times", [1, 3])
def test_a_decode_that_reopens_ends_with_nothing_masked(checkpoint, rule, times):
    """Whatever takes its place, and however often: every position is open to doubt here."""
    model, params = checkpoint("tiny-llada")
    ids, mask = batch(8, (5, 2, 3))
    config = DecodeConfig(12, block_length=6, mix=Mix(1.0), commit=Reopening(rule, 0.0, times), trace=True)
    result = make_decode(model, config)(params, ids, mask)
    assert set(result.stop_reason.tolist()) == {StopReason.FINISHED}
    assert np.all(result.forwards <= config.step_limit)
    assert isinstance(rule, All) or np.sum(result.trace.committed) > 3 * 12  # some were committed more than once
    assert not np.any(result.tokens == model.config.mask_id)


def test_a_decode_without_a_key_draws_nothing(checkpoint):
    """And compiles nothing of it: the null cost of a part that is not used."""
    model, params = checkpoint("tiny-llada")
    ids, mask = batch(0, (3,))
    decode = make_decode(model, DecodeConfig(4))
    np.testing.assert_array_equal(decode(params, ids, mask).tokens, decode(params, ids, mask, jax.random.key(0)).tokens)
    assert "random" not in decode.lower(params, 1, 3).as_text()


def test_every_config_field_is_checked_by_kind():
    for field in dataclasses.fields(DecodeConfig):
        with pytest.raises(ValueError, match=rf"DecodeConfig\.{field.name}="):
            DecodeConfig(**{"gen_length": 8, field.name: object()})
