"""Whether an answer is right; docs/evaluation-harness.md says where lm-eval decides otherwise, and why."""

import itertools
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from lrd_jax.research.benchmarks.requests import Grade

GradeCode = Callable[[dict[str, Any], str], Grade]  # of a problem and an answer, see `Programs.grade`

_NUMBER = r"-?\$?\s?-?\d[\d,]*(?:\.\d+)?"
_MARKED = re.compile(rf"(?:####|answer is:?|\\boxed\{{)\s*\$?\s*({_NUMBER})", re.IGNORECASE)


def grade(benchmark: str, problem: dict[str, Any], output: str, grade_code: GradeCode | None) -> Grade:
    """Grades one answer.

    Args:
      benchmark: one of `lrd_jax.presets.BENCHMARKS`.
      problem: the row of its data set.
      output: what the model wrote after the prompt.
      grade_code: for the benchmarks whose answers are programs.
    """
    if benchmark == "gsm8k":
        return _same_number(problem["answer"], output)
    if benchmark == "math500":
        return _same_mathematics(problem["solution"], output)
    return grade_code(problem, output)


def final_number(text: str) -> Decimal | None:
    """The number that a text ends up with: after its last "####", "answer is" or "\\boxed{", else its last one."""
    marked = _MARKED.findall(text)
    found = marked or re.findall(_NUMBER, text)
    try:
        return Decimal(re.sub(r"[$,\s]", "", found[-1])) if found else None
    except InvalidOperation:
        return None


def _same_number(solution: str, output: str) -> Grade:
    gold, got = final_number(solution), final_number(output)
    return Grade(got is not None and got == gold, f"{got} for {gold}")


def _same_mathematics(solution: str, output: str) -> Grade:
    """Equal as mathematics, as math_verify parses both; it may take seconds, and what it gives up is wrong and says so.

    The solution says what its last box holds. The answer beside it is not asked: lm-eval rewrites it, so that matrices
    lose their rows.
    """
    try:
        gold = _parsed(solution, 60)  # ours, which is never too hard, on however busy a machine
        if not gold:
            return Grade(False, "the solution holds nothing to compare with")
        got = _parsed(output, 5)
        right = _any_equal(gold, got)
    except TimeoutError as error:
        return Grade(False, f"timed out: {error}")
    return Grade(right, f"{got[-1] if got else None} for {gold[-1]}")


def _parsed(text: str, seconds: int) -> list[Any]:
    """What math_verify finds in a text: mathematics, then the words of it.

    Raises:
      TimeoutError: it took longer; its own `parse` hides that, as if there were nothing.
    """
    from math_verify import parse
    from math_verify.errors import TimeoutException

    try:
        return parse(text, parsing_timeout=seconds, raise_on_error=True)
    except TimeoutException:
        raise TimeoutError(f"it took more than {seconds} s to parse {text[-80:]!r}") from None
    except Exception:
        return []


def _any_equal(gold: list[Any], got: list[Any]) -> bool:
    """Whether anything that was found in one text equals anything of the other.

    Raises:
      TimeoutError: nothing does, as far as could be told in time.
    """
    from math_verify import verify
    from math_verify.errors import TimeoutException

    late = False
    for wanted, found in itertools.product(gold, got):
        try:
            if verify(wanted, found, raise_on_error=True):
                return True
        except TimeoutException:
            late = True
        except Exception:
            continue
    if late:
        raise TimeoutError(f"it took too long to compare {got[-1]} with {gold[-1]}")
    return False
