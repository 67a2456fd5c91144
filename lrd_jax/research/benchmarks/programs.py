"""Grades of generated programs, each run in the sandbox."""

from typing import Any

from lrd_jax.research.benchmarks.requests import Grade
from lrd_jax.research.sandbox import Exam, Limits, Outcome, Sandbox, Status, judge

_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=20)  # MBPP's own answer to problem 123 computes for 6.5 s


class Programs:
    """Runs what models wrote.

    Args:
      unsafe: where there is no sandbox, run it without.

    Raises:
      SandboxError: there is none.
    """

    def __init__(self, *, unsafe: bool = False):
        self._sandbox = Sandbox(_LIMITS, unsafe=unsafe)

    def grade(self, problem: dict[str, Any], output: str) -> Grade:
        """An answer to a problem of HumanEval or MBPP."""
        verdict = judge(self._sandbox, problem, output)
        return Grade(verdict.passed, _verdict(verdict.passed, verdict.outcome))

    def passes(self, program: str, tests: str) -> bool:
        """Whether all tests of a program hold; the program never sees their text."""
        return self._sandbox.examine(Exam.of_texts(program, tests)).passed


def _verdict(passed: bool, outcome: Outcome) -> str:
    if passed or outcome.status is not Status.EXITED:
        return "passed" if passed else str(outcome.status)
    lines = outcome.output.strip().splitlines()
    return lines[-1][:200] if lines else f"exit status {outcome.exit_code}"
