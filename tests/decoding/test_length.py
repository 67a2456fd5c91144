"""DAEDAL: the reference's runs, the slow twin where there are none, and what it cannot stand beside."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
import twin_length
from padding import padded
from twin_model import TwinModel

from lrd_jax import (
    DAEDAL,
    KLASS,
    DecodeConfig,
    DualCache,
    LowestEntropy,
    Mix,
    Refine,
    StopReason,
    Threshold,
    make_decode,
)
from lrd_jax.decoding.parts.length import OPEN

COUNTS = ("initial", "factor", "eos_check", "eos")
NUMBERS = ("low", "eos_conf", "eos_expand")
RUNS = goldens.field_runs("daedal")
GROUPS = sorted({(run["checkpoint"], run["params"]["block"]) for run in RUNS.values()})


def daedal(rows):
    """The part of rows of settings, one a row."""
    counts = {name: np.array([row[name] for row in rows]) for name in COUNTS}
    return DAEDAL(**counts, **{name: np.array([row[name] for row in rows], np.float32) for name in NUMBERS})


def grown(forward):
    """What a forward leaves behind, and what it saw of the length."""
    opened = (forward.sight.moved == OPEN) & (jnp.arange(forward.after.tokens.shape[1]) < forward.sight.length[:, None])
    return {
        "tokens": forward.after.tokens,
        "length": forward.after.length,
        "end": forward.config.length.end_confidence(forward.sight),
        "stage": 1 + forward.before.growth["found"],
        "expanded": jnp.where(jnp.any(opened, axis=-1), jnp.argmax(opened, axis=-1), -1),
    }


@pytest.mark.slow
@pytest.mark.usefixtures("users_compiler")
@pytest.mark.parametrize(("name", "block"), GROUPS)
def test_the_references_runs(checkpoint, name, block):
    """Of one window together: all else of DAEDAL, the largest canvas too, is a row's own."""
    model, params = checkpoint(name)
    runs = {key: run for key, run in RUNS.items() if (run["checkpoint"], run["params"]["block"]) == (name, block)}
    settings = [run["params"] for run in runs.values()]
    lengths = np.array([one["max_gen"] for one in settings])
    high = np.array([one["high"] for one in settings], np.float32)
    config = DecodeConfig(
        int(lengths.max()), block_length=block, commit=Threshold(high), length=daedal(settings), suppress_mask=False
    )
    ids, mask = padded([goldens.field_array(key, "prompt")[0] for key in runs])
    result, seen = jax.device_get(make_decode(model, config).watch(grown, params, ids, mask, length=lengths))
    for row, (key, run) in enumerate(runs.items()):
        n, P = run["n_model_calls"], run["params"]["prompt_length"]
        assert (int(result.forwards[row]), int(result.stop_reason[row])) == (n, StopReason.FINISHED)
        want = goldens.field_array(key, "canvases")[1:, 0, P:]
        for after, got, length in zip(want, seen["tokens"][row], seen["length"][row], strict=False):
            np.testing.assert_array_equal(got[:length], after[after >= 0])
        np.testing.assert_array_equal(P + seen["length"][row, :n], goldens.field_array(key, "lengths")[1:])
        np.testing.assert_array_equal(seen["stage"][row, :n], goldens.field_array(key, "stage"))
        expanded = seen["expanded"][row, :n]
        np.testing.assert_array_equal(np.where(expanded < 0, -1, P + expanded), goldens.field_array(key, "expanded"))
        np.testing.assert_allclose(seen["end"][row, :n], goldens.field_array(key, "eos_confidence"), atol=3e-4)
        assert set(result.tokens[row, seen["length"][row, n - 1] :].tolist()) <= {model.config.eos_id}


# Checkpoint, settings, those of the twin: rules that commit otherwise, beliefs that are fed back and refined.
TWINS = [
    ("tiny-llada-gqa", {"commit": Threshold(0.3)}, {"commit": twin.fast_threshold(0.3)}),
    (
        "tiny-dream",
        {"commit": LowestEntropy(2), "mix": Mix(0.4, 0.8), "refine": Refine(0.2, 3)},
        {"commit": twin.lowest_entropy(2), "mix": (0.4, 0.8), "refine": (0.2, 3)},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings", "twin_settings"), TWINS, ids=["llada", "dream"])
def test_any_decoder_grows_as_the_slow_twin_does(checkpoint, name, settings, twin_settings):
    """Rows of a batch, padded, each with its own end token, largest canvas and numbers, as each of them alone."""
    model, params = checkpoint(name)
    slow, inserted, grows = TwinModel(goldens.GOLDEN / name), 0, 0
    decode = make_decode(model, DecodeConfig(40, block_length=8, **settings, length=daedal(rows_of([121] * 5))))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        prompts = [rng.integers(0, 300, n) for n in (5, 1, 8, 3, 8)]
        lengths = np.array([40, 24, 8, 32, 40])
        rows = rows_of([ending(slow, prompt) for prompt in prompts])
        config = decode.config.replace(length=daedal(rows))
        result = decode(params, *padded(prompts), length=lengths, config=config)
        for row, prompt in enumerate(prompts):
            most = int(lengths[row])
            want = twin_length.decode(slow, prompt, rows[row], most=most, block_length=8, **twin_settings)
            n = len(want.tokens)
            np.testing.assert_array_equal(result.tokens[row, :n], want.tokens, err_msg=f"seed {seed}, row {row}")
            assert int(result.forwards[row]) == want.forwards
            inserted, grows = inserted + want.inserted, grows + want.grown
    assert inserted >= 5 and grows >= 3


def rows_of(eos):
    """Settings of five rows."""
    initial, factor, check = (16, 4, 8, 9, 12), (3, 2, 8, 4, 5), (4, 2, 8, 5, 4)
    fixed = {"low": 0.3, "eos_conf": 0.15, "eos_expand": 0.9}
    return [
        dict(zip(COUNTS, numbers, strict=True), **fixed) for numbers in zip(initial, factor, check, eos, strict=True)
    ]


def ending(slow, prompt):
    """The token that most open positions would become, so that there is an end at all."""
    x = np.concatenate([slow.table[prompt], np.tile(slow.table[slow.mask_id], (24, 1))])
    return int(np.bincount(slow.logits(x)[len(prompt) :].argmax(axis=-1)).argmax())


def inserted(forward):
    """Whether a forward moves anything, and the smallest KL that it sees."""
    sight = forward.sight
    here = jnp.arange(sight.moved.shape[1]) < sight.length[:, None]
    moved = jnp.any(here & (sight.moved == OPEN), axis=-1)
    return moved, jnp.min(sight.kl, axis=-1), jnp.min(sight.canvas.kl, axis=-1)


def test_no_belief_is_compared_with_that_of_another_place(checkpoint):
    """By a rule that compares across blocks too, KLASS: only the first forward and those after insertions have none."""
    model, params = checkpoint("tiny-llada")
    length = DAEDAL(initial=10, factor=3, low=0.3, eos_conf=0.0, eos_check=4)
    config = DecodeConfig(24, block_length=8, commit=KLASS(0.1, 0.1), length=length)
    ids, mask = padded([np.arange(3, 8), np.arange(20, 22)])
    result, (moved, *kl) = jax.device_get(make_decode(model, config).watch(inserted, params, ids, mask))
    assert moved.sum() > 2
    for row, n in enumerate(result.forwards):
        want = np.concatenate([[True], moved[row, : n - 1]])
        for seen in kl:
            np.testing.assert_array_equal(np.isposinf(seen[row, :n]), want)


REFUSED = {
    "a cache": (
        lambda: DecodeConfig(8, cache=DualCache(), length=DAEDAL()),
        r"cache=Dual.* and length=DAEDAL\(.* exclude",
    ),
    "a part of a mask": (lambda: DAEDAL(initial=2.5), r"DAEDAL.initial=2.5 must be a whole number in \[1, "),
    "parts of masks": (lambda: DAEDAL(factor=np.array([2, 2.5])), r"DAEDAL.factor=.* must be a whole number in \[2, "),
    "one mask for one": (lambda: DAEDAL(factor=1), r"DAEDAL.factor=1 must be a whole number in \[2, "),
    "no number": (lambda: DAEDAL(eos="end"), r"DAEDAL.eos='end' must be a whole number in \[0, .* or None"),
    "a share above all": (lambda: DAEDAL(eos_conf=1.5), r"DAEDAL.eos_conf=1.5 must be in \[0, 1\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_length_is_refused(case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_given_tokens_would_not_stay(checkpoint):
    model, params = checkpoint("tiny-llada")
    decode = make_decode(model, DecodeConfig(8, block_length=4, length=DAEDAL()))
    with pytest.raises(ValueError, match=r"a canvas gives tokens at their places, and length=DAEDAL\(.* leave one of"):
        decode(params, np.array([[3, 4]]), canvas=np.array([[-1] * 7 + [5]]))
