"""The benchmarks' own answers in place of a model, so that every grading can be seen to reach its ceiling."""

from collections.abc import Sequence
from typing import Any

from lrd_jax.research.benchmarks.benchmarks import BENCHMARK_OF_TASK
from lrd_jax.research.benchmarks.requests import Reply, Request, cut_at_stop

_FIELDS = {"gsm8k": "answer", "math500": "solution", "humaneval": "canonical_solution", "mbpp": "code"}


def gold_output(task: str, problem: dict[str, Any]) -> str:
    """What a model that knows the answer writes after the prompt of an lm-eval task."""
    answer = problem[_FIELDS[BENCHMARK_OF_TASK[task]]]
    if task == "mbpp":
        return f"{answer}\n[DONE]"
    if task == "mbpp_instruct":  # lm-eval puts three backticks before it, and takes a first word for the language
        return f"\n{answer}\n```"
    return f"{answer}\n```" if task.endswith("_instruct") else answer


class GoldAnswers:
    """An `Answerer` that decodes nothing."""

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        return [
            Reply(
                output=cut_at_stop(gold_output(r.task, r.problem), r.until),
                forwards=0,
                refine_forwards=0,
                stop_reason="finished",
                effective_tokens=0,
                seconds=0.0,
            )
            for r in requests
        ]
