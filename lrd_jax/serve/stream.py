"""Server-sent events: pieces of text that only ever append, as `chat.completion.chunk`s or pieces of a completion."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from lrd_jax.serve.asking import Asking, Brought
from lrd_jax.serve.errors import Gone, Told
from lrd_jax.serve.forms import Form

READ_SECONDS = 60.0  # a client that takes nothing for so long is given up

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """The answer of one request, as it settles."""

    def __init__(
        self,
        asking: Asking,
        form: Form,
        *,
        include_usage: bool,
        ended: Callable[[Asking, list[Brought]], None],
        left: Callable[..., None],
    ):
        """
        Args:
          ended: called once all its answers are there.
          left: called when it is over, however.
        """
        super().__init__()
        self._asking, self._form, self._include_usage = asking, form, include_usage
        self._ended, self._left = ended, left

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        ended: Told | Gone | None = None
        try:
            await _within(send({"type": "http.response.start", "status": 200, "headers": _HEADERS}))
            await self._events(receive, send)
        except (Gone, TimeoutError, OSError):
            ended = Gone()
        except Told as error:
            ended = error
            with contextlib.suppress(TimeoutError, OSError):
                await _say(send, error.body)
                await _end(send)
        finally:
            self._asking.cancel()
            self._left(self._asking, ended)

    async def _events(self, receive: Any, send: Any) -> None:
        form, snapshots = self._form, self._asking.asked.snapshots
        for index in range(len(self._asking.asked.rows)):
            await _say(send, form.chunk(None, index, canvas=self._asking.empty(index) if snapshots else None))
        rows: dict[int, Brought] = {}
        async with contextlib.aclosing(self._asking.brought(receive)) as all_brought:
            async for brought in all_brought:
                if brought.answer is not None:
                    rows[brought.index] = brought
                if brought.text or brought.answer is not None or snapshots:
                    await _say(send, form.chunk(brought, brought.index, canvas=brought.canvas if snapshots else None))
        ended = [rows[index] for index in range(len(rows))]
        self._ended(self._asking, ended)
        if self._include_usage:
            await _say(send, form.last(self._asking, ended))
        await _end(send)


async def _say(send: Any, content: Any) -> None:
    data = b"data: " + msgspec.json.encode(content) + b"\n\n"
    await _within(send({"type": "http.response.body", "body": data, "more_body": True}))


async def _end(send: Any) -> None:
    await _within(send({"type": "http.response.body", "body": _DONE, "more_body": False}))


async def _within(sent: Any) -> None:
    await asyncio.wait_for(sent, READ_SECONDS)
