"""Prophet: the reference's runs, and the slow twin where there are none."""

import dataclasses

import goldens
import jax
import numpy as np
import pytest
import twin
from padding import padded
from sights import recorded
from twin_model import TwinModel

from lrd_jax import (
    DecodeConfig,
    DualCache,
    LowestEntropy,
    Mix,
    PrefixCache,
    Prophet,
    Refine,
    Reopening,
    Scheduled,
    StopReason,
    Threshold,
    make_decode,
)
from lrd_jax.decoding.setting import setting, whole, whole_number

RUNS = goldens.field_runs("prophet")
GROUPS = sorted({(run["checkpoint"], run["params"]["block"]) for run in RUNS.values()})


@setting
class PlannedByRow(Scheduled):
    """The reference's schedule with forwards a block that are a row's own, so that its runs share a compile."""

    by_block: int | np.ndarray = whole(default=1)

    def block_steps(self, sight):
        return whole_number(self.by_block)


def gaps(forward):
    return forward.after.tokens, forward.config.stop.gap(forward.sight)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("users_compiler")
@pytest.mark.parametrize(("name", "block"), GROUPS)
def test_the_references_runs(checkpoint, name, block):
    """Of one window together, each with its own plan, canvas, given tokens and answer."""
    model, params = checkpoint(name)
    runs = {key: run for key, run in RUNS.items() if (run["checkpoint"], run["params"]["block"]) == (name, block)}
    settings = [run["params"] for run in runs.values()]
    lengths = np.array([one["gen"] for one in settings])
    thresholds = ([one["thresholds"][time] for one in settings] for time in ("early", "mid", "late"))
    stop = Prophet(
        *(np.array(numbers, np.float32) for numbers in thresholds), np.array([one["answer_start"] for one in settings])
    )
    plan = PlannedByRow(by_block=np.array([one["steps"] // (one["gen"] // block) for one in settings]))
    G = int(lengths.max())
    canvas = np.full((len(runs), G), -1)
    for row, one in enumerate(settings):
        for place, token in one.get("constraints", {}).items():
            canvas[row, int(place)] = token
    config = DecodeConfig(G, block_length=block, commit=plan, stop=stop, suppress_mask=False)
    ids, mask = padded([goldens.field_array(key, "prompt")[0] for key in runs])
    decode = make_decode(model, config)
    result, (tokens, gap) = jax.device_get(decode.watch(gaps, params, ids, mask, length=lengths, canvas=canvas))
    for row, (key, run) in enumerate(runs.items()):
        n, length = run["n_model_calls"], lengths[row]
        stopped = run["exit_step"] > 0
        assert int(result.forwards[row]) == n
        assert result.stop_reason[row] == (StopReason.SETTLED if stopped else StopReason.FINISHED)
        want = goldens.field_array(key, "canvases")[1:, 0, run["params"]["prompt_length"] :]
        np.testing.assert_array_equal(tokens[row, :n, :length], want)
        np.testing.assert_allclose(gap[row, :n], goldens.field_array(key, "answer_gap"), atol=6e-4)


TWINS = [
    ("tiny-llada-gqa", {"commit": Scheduled(8)}, {"commit": twin.llada(2)}, 8),
    (
        "tiny-dream",
        {"commit": LowestEntropy(2), "mix": Mix(0.4, 0.8), "refine": Refine(0.2, 3)},
        {"commit": twin.lowest_entropy(2), "mix": (0.4, 0.8), "refine": (0.2, 3, "block")},
        8,
    ),
]


def rest(thresholds, answer, planned):
    """Prophet as its specification tells it."""

    def decided(logits, forwards):
        at = [i for i in range(answer, answer + 5) if i < len(logits)]
        if not at:
            return False
        ordered, progress = np.sort(logits[at], axis=-1), forwards / planned
        threshold = thresholds[0] if progress < 0.33 else thresholds[1] if progress < 0.67 else thresholds[2]
        return np.mean(ordered[:, -1] - ordered[:, -2]) >= threshold

    return decided


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings", "twin_settings", "planned"), TWINS, ids=["llada", "dream"])
def test_any_decoder_is_decided_as_the_slow_twins(checkpoint, name, settings, twin_settings, planned):
    """Rows of a batch, padded, each with its own answer and thresholds; some stop within their canvas, some never."""
    model, params = checkpoint(name)
    slow, reasons = TwinModel(goldens.GOLDEN / name), []
    answers, thresholds = np.array([0, 3, 9, 11, 12]), np.array([[2.4, 1.8, 1.2]] * 5, np.float32)
    thresholds[2] = 50
    stop = Prophet(*thresholds.T, answers)
    decode = make_decode(model, DecodeConfig(12, block_length=3, stop=stop, **settings, trace=True))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        prompts = [rng.integers(0, 300, n) for n in (5, 1, 8, 3, 8)]
        result = decode(params, *padded(prompts))
        for row, prompt in enumerate(prompts):
            decided = rest(thresholds[row], answers[row], planned)
            want = twin.twin_decode(slow, prompt, gen_length=12, block_length=3, rest=decided, **twin_settings)
            np.testing.assert_array_equal(result.tokens[row], want.tokens, err_msg=f"seed {seed}, row {row}")
            assert int(result.forwards[row]) == want.forwards
            assert StopReason(int(result.stop_reason[row])).name.lower() == want.stop_reason
            assert int(result.trace.committed[row].sum()) == 12
            reasons.append(want.stop_reason)
    assert reasons.count("settled") >= 3 and reasons.count("finished") >= 4  # rows 2 and 4 never stop


def test_without_an_answers_place_nothing_stops(checkpoint):
    model, params = checkpoint("tiny-llada")
    never = make_decode(model, DecodeConfig(8, block_length=4, stop=Prophet(0, 0, 0)))(params, np.array([[3, 4, 5]]))
    assert (int(never.forwards[0]), int(never.stop_reason[0])) == (8, StopReason.FINISHED)


PLANS = {
    "two at a time": (LowestEntropy(2), [8, 6, 2]),
    "three at a time": (LowestEntropy(3), [8, 6, 2]),
    "twelve forwards": (Scheduled(12), [12, 12, 12]),
    "one a position": (Scheduled(), [16, 12, 4]),
    "no plan": (Threshold(), [16, 12, 4]),
    "a rule around another": (Reopening(LowestEntropy(4)), [4, 3, 1]),
}


@pytest.mark.parametrize("case", PLANS)
def test_forwards_that_are_planned(case):
    """For rows of 16, 12 and 4 positions in blocks of 4; three at a time fill one in two forwards."""
    rule, want = PLANS[case]
    sight = recorded(np.zeros(3), np.zeros((3, 4)), 0.5)
    sight = dataclasses.replace(sight, length=np.array([16, 12, 4]))
    np.testing.assert_array_equal(np.broadcast_to(rule.plan(sight), 3), want)


REFUSED = {
    "a prefix cache": (
        lambda: DecodeConfig(8, cache=PrefixCache(), stop=Prophet()),
        r"cache=Prefix.* and stop=Prophet\(",
    ),
    "a dual cache": (
        lambda: DecodeConfig(8, cache=DualCache(), stop=Prophet()),
        r"computes a part of the canvas, and stop=",
    ),
    "a place between two": (
        lambda: Prophet(answer_start=1.5),
        r"Prophet.answer_start=1.5 must be a whole number in \[0, ",
    ),
    "a place before the canvas": (
        lambda: Prophet(answer_start=-1),
        r"Prophet.answer_start=-1 must be a whole number in",
    ),
    "a threshold below 0": (lambda: Prophet(late=-1.0), r"Prophet.late=-1.0 must be in \[0, inf\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_prophet_is_refused(case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build()
