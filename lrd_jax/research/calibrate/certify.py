"""How often a stop changes answers, with a guarantee: Learn-then-Test (arXiv 2110.01052) along a fixed sequence.

Prompts are taken as independent draws of what the decoder will be asked. Each setting j of a sequence that was fixed
before the data was seen has an unknown rate R_j of answers that its stop changes. H_j: R_j > risk is rejected where
the exact p-value P(Binomial(n, risk) <= k_j) <= 1 - confidence, k_j of n answers changed. Testing in order and ending
at the first H_j that is not rejected keeps the chance that any rejected H_j is true at or below 1 - confidence, since
an error must begin at the first true H_j, whose own test errs at most so often. So every setting before the end is
certified, and the fastest of them may be taken.
"""

import dataclasses
import math

from scipy.special import bdtr, betaincinv

from lrd_jax.errors import Refused

_MOST = 2**31 - 1  # prompts that the test takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """One tested setting.

    Attributes:
      changed: answers that the stop changed.
      bound: with the confidence asked for, the rate is at most this (Clopper-Pearson, one-sided).
      certified: the setting was reached and passed.
    """

    changed: int
    bound: float
    certified: bool


def p_value(changed: int, prompts: int, risk: float) -> float:
    """P(Binomial(prompts, risk) <= changed)."""
    return float(bdtr(changed, prompts, risk))


def upper_bound(changed: int, prompts: int, confidence: float) -> float:
    """The one-sided Clopper-Pearson bound: the rate at which `changed` or fewer has probability 1 - confidence."""
    return 1.0 if changed == prompts else float(betaincinv(changed + 1, prompts - changed, confidence))


def prompts_needed(risk: float, confidence: float, changed: int = 0) -> int:
    """Fewest prompts on which `changed` answers pass the test; with none, log(1 - confidence) / log(1 - risk).

    Found by bisection: more prompts with as many changes never raise the p-value.

    Raises:
      Refused: they are more than the test takes.
    """
    low, high = changed, max(1, changed)
    while p_value(changed, high, risk) > 1 - confidence:
        if high == _MOST:
            raise Refused(
                f"with {changed} answers changed, risk {risk:g} at confidence {confidence:g} takes more than {_MOST} "
                "prompts: choose a higher risk"
            )
        low, high = high, min(2 * high, _MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(changed, middle, risk) <= 1 - confidence else (middle, high)
    return high


def check_levels(risk: float, confidence: float) -> None:
    """Raises ValueError for a risk or confidence outside (0, 1)."""
    for name, value in (("risk", risk), ("confidence", confidence)):
        if not 0 < value < 1 or math.isnan(value):
            raise Refused(f"{name}={value} must be above 0 and below 1, as in --risk 0.02 --confidence 0.95")


def check_enough(prompts: int, risk: float, confidence: float) -> None:
    """Raises ValueError where even unchanged answers could certify nothing."""
    if prompts < (needed := prompts_needed(risk, confidence)):
        raise Refused(
            f"{prompts} prompts cannot certify risk {risk:g} at confidence {confidence:g}: it takes at least {needed} "
            f"if no answer changes, {prompts_needed(risk, confidence, 1)} if one does; without any change {prompts} "
            f"prompts certify risk {upper_bound(0, prompts, confidence):.4f}"
        )


def fixed_sequence(changed: list[int], prompts: int, risk: float, confidence: float) -> list[Rung]:
    """Tests the settings of a fixed sequence in their order.

    Args:
      changed: k_j, answers changed by the stop of setting j.
      prompts: n.

    Returns:
      A rung for every setting; those after the first that fails are not tested, and not certified.
    """
    rungs, open_ = [], True
    for count in changed:
        open_ = open_ and p_value(count, prompts, risk) <= 1 - confidence
        rungs.append(Rung(changed=count, bound=upper_bound(count, prompts, confidence), certified=open_))
    return rungs
