"""lm-eval's grading of generated code, in the sandbox.

lm-eval's code tasks load the metric `code_eval` from the hub, which runs programs in processes of its own with the
user's rights. Here the name leads to `SandboxedCodeEval` instead, whoever asks for it in this process.
"""

import math
from collections.abc import Callable, Sequence

import evaluate


class SandboxedCodeEval:
    """What `evaluate.load("code_eval")` gives, as far as lm-eval's tasks use it."""

    def __init__(self, passes: Callable[[str], bool]):
        self._passes = passes

    def compute(
        self, *, predictions: Sequence[Sequence[str]], references: Sequence[str], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], list[list[bool]]]:
        """pass@k over problems (Chen et al. 2021), and whether each program passes."""
        passed = [
            [self._passes(f"{program}\n{tests}") for program in programs]
            for programs, tests in zip(predictions, references, strict=True)
        ]
        able = [width for width in k if all(len(row) >= width for row in passed)]
        return {f"pass@{w}": sum(_pass_at(w, row) for row in passed) / len(passed) for w in able}, passed


def _pass_at(k: int, passed: list[bool]) -> float:
    """The chance that k of the programs, drawn without putting back, hold one that passes."""
    return 1.0 - math.comb(len(passed) - sum(passed), k) / math.comb(len(passed), k)


def use_sandbox(passes: Callable[[str], bool]) -> None:
    """From now on `evaluate.load("code_eval")` gives the sandboxed metric.

    Args:
      passes: whether a program comes to its end, see `Programs.passes`.
    """
    load = getattr(evaluate.load, "without_sandbox", evaluate.load)

    def load_sandboxed(path: str, *args, **kwargs):
        return SandboxedCodeEval(passes) if path == "code_eval" else load(path, *args, **kwargs)

    load_sandboxed.without_sandbox = load
    evaluate.load = load_sandboxed
