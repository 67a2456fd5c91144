"""lm-eval's grading of generated code, in the sandbox.

lm-eval's code tasks load the metric `code_eval` from the hub, which runs programs in processes of its own with the
user's rights. Here the name leads to `SandboxedCodeEval` instead, whoever asks for it in this process.
"""

import math
from collections.abc import Callable, Sequence

import evaluate

Passes = Callable[[str, str], bool]  # of a program and its tests


class SandboxedCodeEval:
    """What `evaluate.load("code_eval")` gives, as far as lm-eval's tasks use it.

    Attributes:
      passes: whether the tests of a program hold, see `Programs.passes`.
    """

    def __init__(self):
        self.passes: Passes | None = None

    def compute(
        self, *, predictions: Sequence[Sequence[str]], references: Sequence[str], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], list[list[bool]]]:
        """pass@k over problems (Chen et al. 2021), and whether each program passes."""
        passed = [
            [self.passes(program, tests) for program in programs]
            for programs, tests in zip(predictions, references, strict=True)
        ]
        able = [width for width in k if all(len(row) >= width for row in passed)]
        return {f"pass@{w}": sum(_pass_at(w, row) for row in passed) / len(passed) for w in able}, passed


def _pass_at(k: int, passed: list[bool]) -> float:
    """The chance that k of the programs, drawn without putting back, hold one that passes."""
    return 1.0 - math.comb(len(passed) - sum(passed), k) / math.comb(len(passed), k)


def use_sandbox(passes: Passes) -> None:
    """From now on `evaluate.load("code_eval")` gives the sandboxed metric, and whoever holds it uses `passes`."""
    _METRIC.passes = passes
    evaluate.load = _load_sandboxed


_METRIC = SandboxedCodeEval()  # one, because lm-eval's tasks load it once a process and keep it
_load = evaluate.load


def _load_sandboxed(path: str, *args, **kwargs):
    return _METRIC if path == "code_eval" else _load(path, *args, **kwargs)
