"""What clients send: the fields that are read, their types and ranges, and what is refused.

Forms: https://platform.openai.com/docs/api-reference/chat and .../completions. A field that is not named here passes.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from lrd_jax.errors import Refused
from lrd_jax.serve.errors import Told
from lrd_jax.text import Message, Piece, check_messages, parse_holes

_Count = Annotated[int, Meta(ge=1, le=2**20)]
_MOST_STOPS = 16


class StreamOptions(msgspec.Struct):
    """Of a stream."""

    include_usage: bool | None = None


class Body(msgspec.Struct):
    """What both endpoints take."""

    model: str | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    lrd: dict[str, Any] | None = None
    best_of: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    tools: Any = None
    functions: Any = None
    response_format: Any = None
    modalities: Any = None


class ChatMessage(msgspec.Struct):
    """One of a conversation."""

    role: str
    content: str | list[dict[str, Any]]


class Chat(Body):
    """Of /v1/chat/completions."""

    messages: list[ChatMessage] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class Text(Body):
    """Of /v1/completions."""

    prompt: str | list[str | int | list[int]] | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0)] | bool | None = None


B = TypeVar("B", bound=Body)


def read(data: bytes, kind: type[B]) -> B:
    """A body.

    Raises:
      Told: 400, naming the field that is wrong.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at ")
        name = place.strip("`").removeprefix("$").removeprefix(".")
        words = re.sub(r"`| \| null\b", "", said[:1].lower() + said[1:])
        raise Told(400, f"{name or 'the body'}: {words}", param=name or None) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Told(400, f"the body is no JSON: {str(error)[:200]}") from None


def refuse_unable(body: Body) -> None:
    """Raises Told, 400, for what a diffusion model or this server cannot do, and says what to use instead."""

    def no(name: str, words: str) -> None:
        raise Told(400, f"{name} is not supported: {words}", param=name, code="unsupported_value")

    if body.tools or body.functions:
        no("tools" if body.tools else "functions", "ask for the call as text and read it from the answer")
    kind = body.response_format.get("type") if isinstance(body.response_format, dict) else body.response_format
    if kind not in (None, "text"):
        no("response_format", 'give the form of the answer with holes, as in lrd={"canvas": "{{\\"age\\": {2}}}"}')
    if body.best_of not in (None, 1, body.n):
        no("best_of", "ask for n answers and choose among them")
    if body.presence_penalty or body.frequency_penalty:
        name = "presence_penalty" if body.presence_penalty else "frequency_penalty"
        no(name, "positions are decided together, none after all others; leave it out")
    if body.logit_bias:
        no("logit_bias", "leave it out; lrd.labels chooses among given answers")
    if body.modalities not in (None, ["text"]):
        no("modalities", "the model answers in text")
    if isinstance(body, Text) and body.echo:
        instead = "lrd.labels scores given answers, `lrd-jax eval` likelihoods" if body.logprobs else "put it in front"
        no(
            "echo",
            f"a masked model has no next-token likelihood of the prompt; {instead}" if body.logprobs else instead,
        )
    if isinstance(body, Chat) and (body.top_logprobs or 0) > 1:
        no("top_logprobs", "the server keeps the belief in the token that was committed; 1 gives it")
    if isinstance(body, Chat) and body.top_logprobs and not body.logprobs:
        raise Told(400, "top_logprobs needs logprobs=true", param="top_logprobs")
    if isinstance(body, Text) and not isinstance(body.logprobs, bool) and (body.logprobs or 0) > 1:
        no("logprobs", "the server keeps the belief in the token that was committed; 1 gives it")


def drawn(body: Body) -> str | None:
    """The name of a field that tells how tokens are drawn or what is done with them; None where there is none."""
    asks = {
        "stream": body.stream,
        "n": body.n not in (None, 1),
        "temperature": body.temperature,
        "top_p": body.top_p not in (None, 1),
        "stop": body.stop,
        "suffix": isinstance(body, Text) and body.suffix,
        "logprobs": isinstance(body, Chat | Text) and body.logprobs not in (None, False),
    }
    return next((name for name, is_asked in asks.items() if is_asked), None)


def length_asked(body: Body) -> int | None:
    both = {length for length in (body.max_tokens, body.max_completion_tokens) if length is not None}
    if len(both) > 1:
        raise Told(400, "max_tokens and max_completion_tokens differ; leave one of them out", param="max_tokens")
    return both.pop() if both else None


def stops_asked(body: Body) -> tuple[str, ...]:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stops) > _MOST_STOPS:
        raise Told(400, f"stop holds {len(stops)} texts, more than {_MOST_STOPS}", param="stop")
    return tuple(stop for stop in stops if stop)


def prompts_of(body: Text) -> list[str | list[int]]:
    """The prompts, of whichever of the four forms.

    Raises:
      Told: 400, for none, and for lists of several kinds.
    """
    asked = body.prompt
    if asked is None or asked == [] or asked == "":
        raise Told(
            400, "prompt is missing; a text, a list of texts, token ids or lists of them was wanted", param="prompt"
        )
    if isinstance(asked, str):
        return [asked]
    kinds = {type(item) for item in asked}
    if kinds == {int}:
        return [[item for item in asked if isinstance(item, int)]]
    if len(kinds) > 1 or [] in asked:
        raise Told(400, "prompt must be all texts, all token ids or all lists of token ids, none empty", param="prompt")
    return [item for item in asked if not isinstance(item, int)]


def messages_of(body: Chat) -> list[Message]:
    """The conversation.

    Raises:
      Told: 400, for none; for roles and parts that are not text.
      Refused: what `check_messages` refuses.
    """
    if not body.messages:
        raise Told(
            400, "messages is missing; a list of messages with a role and a content was wanted", param="messages"
        )
    said = [{"role": _role(message.role), "content": _content(message.content)} for message in body.messages]
    return check_messages(said, "messages")


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _content(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Told(
                400, f"messages holds a part of type {part.get('type')!r:.40}: the model reads text", param="messages"
            )
        texts.append(part["text"])
    return "".join(texts)


def pieces_of(canvas: Any) -> Sequence[Piece]:
    """Of a canvas with holes: "Tom has {4} apples.", or a list of texts and numbers of open positions."""
    if isinstance(canvas, str):
        return parse_holes(canvas)
    if isinstance(canvas, list):
        return canvas
    raise Refused(f"lrd.canvas must be a text with holes, or a list of texts and numbers, got {canvas!r:.80}")
