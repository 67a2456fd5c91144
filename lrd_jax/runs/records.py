"""A line of answers: what was said to a line of prompts, with the facts of the decode."""

from typing import Any

from lrd_jax.answer import Answer
from lrd_jax.runs.lines import BadLine, Line
from lrd_jax.runs.openai import failure, response
from lrd_jax.runs.store import ERROR, LINE


def answer_record(line: Line, answer: Answer, prompt_tokens: int, model: str) -> dict[str, Any]:
    """The answer's fields, as of `lrd-jax generate --json`; beside them the response, where the line was OpenAI's."""
    record = {"id": line.id, LINE: line.number, **answer.to_json(), "prompt_tokens": prompt_tokens, ERROR: None}
    if line.url is None:
        return record
    said = response(f"{line.id}", line.url, model, answer, prompt_tokens)
    return {**record, "custom_id": line.id, "response": said}


def refused_record(number: int, error: BadLine) -> dict[str, Any]:
    """Why there is no answer."""
    record: dict[str, Any] = {"id": error.id, LINE: number, ERROR: str(error)}
    if not error.is_batch:
        return record
    told = {"code": "invalid_request", "message": str(error)}
    return {**record, ERROR: told, "custom_id": error.id, "response": failure(error.id, str(error))}
