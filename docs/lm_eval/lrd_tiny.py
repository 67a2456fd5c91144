"""The questions of `lrd-jax reproduce` for lm-eval, and their grading: exact, by the tasks' own checkers."""

import functools
from typing import Any

import datasets

from lrd_jax import load
from lrd_jax.research.questions import Question, source_of

COUNT, SEED, CANVAS = 200, 1, 64


@functools.cache
def asked() -> list[Question]:
    """As `lrd-jax reproduce --counts 200 --canvases 64` asks them."""
    return source_of(("words", "code"))(COUNT, SEED, CANVAS, load("lrd-tiny-refined").tokenizer)


def questions(**_: Any) -> dict[str, datasets.Dataset]:
    rows = [{"place": place, "prompt": question.prompt, "answer": ""} for place, question in enumerate(asked())]
    return {"test": datasets.Dataset.from_list(rows)}


def graded(row: dict[str, Any], answers: list[str]) -> dict[str, float]:
    return {"right": float(asked()[row["place"]].check(answers[0]))}
