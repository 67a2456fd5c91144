"""OpenAI's batch files: a request a line, and its response.

Form: https://platform.openai.com/docs/api-reference/batch. What a diffusion model cannot do is refused, and what does
not matter to it passes.
"""

import time
from collections.abc import Mapping
from typing import Any

from lrd_jax.answer import Answer
from lrd_jax.errors import Refused

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

_UNWANTED = {  # what asks for more than an answer, and what asks for nothing
    "n": (None, 1),
    "best_of": (None, 1),
    "stream": (None, False),
    "echo": (None, False),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
}
_OWN = ("canvas", "numbers")  # of a body's "lrd"


def is_batch_line(record: Mapping[str, Any]) -> bool:
    return "body" in record or "custom_id" in record


def plain_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an OpenAI line asks for, by the names of the plain form, and its "url".

    Raises:
      ValueError: another method or endpoint, no body, or a body that asks for what a diffusion model cannot do.
    """
    url, body = record.get("url"), record.get("body")
    if record.get("method", "POST") != "POST":
        raise Refused(f'"method" must be POST, got {record["method"]!r:.80}')
    if url not in (CHAT, TEXT):
        raise Refused(f'"url" must be {CHAT} or {TEXT}, got {url!r:.80}')
    if not isinstance(body, dict):
        raise Refused(f'"body" must be a JSON object, got {body!r:.80}')
    for name, harmless in _UNWANTED.items():
        if name in body and body[name] not in harmless:
            raise Refused(f"{name}={body[name]!r:.80} is not supported; leave it out")
    lengths = [body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    if lengths[1:] and lengths[0] != lengths[1]:
        raise Refused("max_tokens and max_completion_tokens differ; leave one of them out")
    own = body.get("lrd") or {}
    if not isinstance(own, dict) or not own.keys() <= set(_OWN):
        raise Refused(f'"lrd" must be a JSON object of {" and ".join(_OWN)}, got {own!r:.80}')
    numbers = own.get("numbers") or {}
    if not isinstance(numbers, dict):
        raise Refused(f'"numbers" must be numbers by name, such as {{"threshold": 0.9}}, got {numbers!r:.80}')
    asked = {name: body[name] for name in ("temperature", "top_p") if body.get(name) is not None}
    prompt = {name: body[name] for name in ("messages" if url == CHAT else "prompt",) if name in body}
    if not prompt:
        raise Refused(f'the "body" of {url} must have {"messages" if url == CHAT else "a prompt"}')
    return {
        **prompt,
        "length": lengths[0] if lengths else None,
        "seed": body.get("seed"),
        "stop": body.get("stop"),
        "canvas": own.get("canvas"),
        "numbers": {**asked, **numbers},
        "url": url,
    }


def response(id: str, url: str, model: str, answer: Answer, prompt_tokens: int) -> dict[str, Any]:
    """The response of an OpenAI line, as a server would have given it, with the decode's facts in "lrd"."""
    said: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": answer.finish}
    if url == CHAT:
        said["message"] = {"role": "assistant", "content": answer.text}
    else:
        said["text"] = answer.text
    count = len(answer.tokens)
    body = {
        "id": f"{'chatcmpl' if url == CHAT else 'cmpl'}-{id}",
        "object": "chat.completion" if url == CHAT else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [said],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": count,
            "total_tokens": prompt_tokens + count,
        },
        "lrd": {name: getattr(answer, name) for name in ("forwards", "refine_forwards", "stop_reason")},
    }
    return {"status_code": 200, "request_id": id, "body": body}


def failure(id: str | None, message: str) -> dict[str, Any]:
    """That of one that was refused."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return {"status_code": 400, "request_id": id, "body": {"error": error}}
