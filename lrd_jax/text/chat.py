"""Conversations: what a message is, and how a checkpoint's template writes them down."""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lrd_jax.errors import Refused

Message = Mapping[str, str]  # of "role" and "content"

ROLES = ("system", "user", "assistant")


def check_messages(messages: Any, name: str) -> list[Message]:
    """The messages of a conversation.

    Args:
      name: of the conversation, for messages.

    Raises:
      ValueError: no messages, a message that is not a role and a text, an unknown role, or a last message that is not
        the user's.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise Refused(f"{name} must be a text, or a list of messages with a role and a content, got {_short(messages)}")
    for message in messages:
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise Refused(f"a message of {name} must have a role and a content, got {_short(message)}")
        if message["role"] not in ROLES:
            raise Refused(f"role {_short(message['role'])} in {name} is unknown; it may be {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            raise Refused(f"the content of a message of {name} must be a text, got {_short(message['content'])}")
    if messages[-1]["role"] != "user":
        raise Refused(f"{name} ends with a message of the {messages[-1]['role']}; the user's must come last")
    return list(messages)


def render(
    template: str, messages: Sequence[Message], special_tokens: Mapping[str, str], *, add_generation_prompt: bool
) -> str:
    """The conversation as a Jinja chat template writes it, with what transformers offers to templates.

    Raises:
      ValueError: the template refuses the conversation, or cannot be read.
    """
    from jinja2.exceptions import TemplateError

    try:
        return _compiled(template).render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except Exception as error:  # it is a program of whoever made the model: it may raise anything
        said = f"{error}" if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise Refused(f"the model's chat template refuses the conversation: {said:.500}") from error


@functools.lru_cache(maxsize=8)
def _compiled(template: str):
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        """Jinja's own would write HTML entities."""
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_extension()]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)


def _generation_extension() -> type:
    """`{% generation %}`, by which templates mark the assistant's words for training: here only what is inside."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
