"""Certificates: the exact bounds, the number of prompts, and by simulation that the guarantee holds and has power."""

import numpy as np
import pytest
from scipy.stats import binom

from lrd_jax.research.calibrate.certify import (
    check_enough,
    check_levels,
    fixed_sequence,
    p_value,
    prompts_needed,
    upper_bound,
)


@pytest.mark.parametrize(("changed", "prompts"), [(0, 149), (3, 200), (17, 60), (60, 60)])
def test_the_bound_is_where_the_exact_test_turns(changed, prompts):
    bound = upper_bound(changed, prompts, 0.95)
    if changed == prompts:
        assert bound == 1
    else:
        assert binom.cdf(changed, prompts, bound) == pytest.approx(0.05)
        assert p_value(changed, prompts, bound + 1e-6) < 0.05 < p_value(changed, prompts, bound - 1e-6)


def test_bounds_without_changes_are_the_closed_form():
    assert upper_bound(0, 100, 0.95) == pytest.approx(1 - 0.05**0.01)


@pytest.mark.parametrize(
    ("risk", "confidence", "changed", "prompts"),
    [(0.02, 0.95, 0, 149), (0.05, 0.95, 0, 59), (0.01, 0.99, 0, 459), (0.02, 0.95, 1, 236), (0.5, 0.95, 0, 5)],
)
def test_prompts_needed_is_the_fewest_that_pass(risk, confidence, changed, prompts):
    assert prompts_needed(risk, confidence, changed) == prompts
    assert binom.cdf(changed, prompts, risk) <= 1 - confidence < binom.cdf(changed, prompts - 1, risk)


def test_too_few_prompts_are_told_how_many_it_takes():
    check_enough(149, 0.02, 0.95)
    with pytest.raises(ValueError, match=r"148 prompts cannot certify risk 0.02 .* at least 149 if no answer changes"):
        check_enough(148, 0.02, 0.95)


def test_a_risk_that_no_number_of_prompts_certifies_is_refused():
    assert prompts_needed(1.5e-9, 0.95) > 2**30
    with pytest.raises(ValueError, match=r"risk 1e-09 at confidence 0.95 takes more than 2147483647 prompts"):
        check_enough(10, 1e-9, 0.95)


@pytest.mark.parametrize(("risk", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.02, 1.0), (float("nan"), 0.95)])
def test_levels_outside_the_unit_interval_are_refused(risk, confidence):
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        check_levels(risk, confidence)


def test_nothing_after_the_first_failure_is_certified():
    rungs = fixed_sequence([0, 1, 9, 0], prompts=400, risk=0.02, confidence=0.95)
    assert [rung.certified for rung in rungs] == [True, True, False, False]
    assert rungs[3].bound == rungs[0].bound < 0.02  # it would have passed on its own


# The rate of each setting's stop in a population; the third of these has just more than the risk.
RATES = np.array([0.0, 0.008, 0.0201, 0.03, 0.06])


def last_certified(prompts, draws, rates=RATES, risk=0.02, confidence=0.95, nested=True):
    """Index of the certified setting in many samples, -1 where none is."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        hardness = rng.random((prompts, 1 if nested else len(rates)))  # nested: looser stops change what stricter do
        changed = np.sum(hardness < rates, axis=0).tolist()
        passed = [rung.certified for rung in fixed_sequence(changed, prompts, risk, confidence)]
        found.append(sum(passed) - 1)
    return np.array(found)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("prompts", [150, 400, 1000])
def test_wrong_certificates_are_no_more_than_promised(prompts, nested):
    """Share of samples that certify a setting whose true rate is above the risk: at most 5 %, three errors of slack."""
    draws = 2000
    found = last_certified(prompts, draws, nested=nested)
    wrong = np.mean((found >= 0) & (RATES[found] > 0.02))
    assert wrong <= 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


def test_the_test_is_sharp_at_its_level():
    """A first setting at the risk itself is certified about as often as allowed: nothing is given away."""
    found = last_certified(1000, 2000, rates=np.array([0.0200001]))
    assert 0.02 < np.mean(found == 0) <= 0.065


@pytest.mark.parametrize(("prompts", "least"), [(400, 0.35), (1000, 0.9)])
def test_good_settings_are_certified(prompts, least):
    assert np.mean(last_certified(prompts, 500) >= 1) >= least


def test_without_the_order_the_guarantee_would_fail():
    """Taking any setting that passes by itself, of twenty at the risk, errs far more often: the test can fail."""
    rng = np.random.default_rng(1)
    counts = rng.binomial(400, 0.0201, size=(500, 20))
    assert np.mean([any(p_value(int(k), 400, 0.02) <= 0.05 for k in row) for row in counts]) > 0.3
