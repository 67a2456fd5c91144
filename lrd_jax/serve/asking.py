"""One request under way: its rows in the engines, and what they bring, as they bring it."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable

import numpy as np

from lrd_jax.answer import Answer, Canvas, Update, answer_of
from lrd_jax.errors import Refused
from lrd_jax.serve.connection import Receive, until_gone
from lrd_jax.serve.desk import Asked, Desk
from lrd_jax.serve.errors import Gone, Told
from lrd_jax.text import SettledText, Tokenizer


@dataclasses.dataclass(frozen=True)
class Brought:
    """What a round brought to one row.

    Attributes:
      index: of the row.
      text: that has settled since the last time.
      canvas: what the text is of.
      answer: once the row has ended.
    """

    index: int
    text: str
    canvas: Canvas
    answer: Answer | None


class Asking:
    """The rows of one request.

    Attributes:
      asked: what they are.
      handles: one a row, once `submit` was called.
      first_text: seconds from the request to its first text; None before.
    """

    def __init__(self, desk: Desk, asked: Asked, *, streams: bool):
        """
        Args:
          streams: every round is wanted, not the answers alone.
        """
        self.asked, self.handles = asked, []
        self.began, self.first_text = time.monotonic(), None
        self._desk, self._streams = desk, streams
        self._views = [_View(desk, asked) for _ in asked.rows]
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Update] | Exception] = asyncio.Queue()

    def submit(self) -> None:
        """Puts all rows into the queues, or none.

        Raises:
          Told: 429 where they are full, 503 where the engines take no more.
        """
        self._desk.require_room(len(self.asked.rows))
        every = 1 if self.asked.snapshots and self._streams else None
        try:
            for index, (name, checked) in enumerate(self.asked.rows):
                self.handles.append(self._desk.put(name, checked, self._listener(index), every))
        except Refused as error:
            self.cancel()
            raise Told(503, str(error)) from None

    async def brought(self, receive: Receive) -> AsyncGenerator[Brought, None]:
        """What the rows bring, until all have ended; leaving it early cancels them.

        Args:
          receive: of the connection, whose end it notices.

        Raises:
          Gone: the client is.
          Told: the engines failed, the server shuts down, or the model's logits were not finite.
        """
        watch = asyncio.create_task(self._watch(receive))
        left = len(self.handles)
        try:
            while left:
                event = await self._events.get()
                if isinstance(event, Exception):
                    raise event
                index, update = event
                brought = self._views[index].seen(index, update)
                if brought.answer is not None:
                    left -= 1
                    if brought.answer.stop_reason == "non-finite":
                        raise Told(500, "the model's logits were not finite: it cannot answer this", code="non_finite")
                yield brought
        finally:
            watch.cancel()
            self.cancel()

    def empty(self, index: int) -> Canvas:
        """A row's canvas before its first forward."""
        work = self.asked.rows[index][1].work
        given = np.full(work.length, -1, np.int32) if work.canvas is None else work.canvas
        guesses = np.full(len(given), -1, np.int32)
        canvas = Canvas(tokens=given, masked=given < 0, guesses=guesses, steps=0, refining=False, running=True)
        return canvas if self.asked.keep is None else canvas.cut(self.asked.keep)

    def interrupt(self, error: Exception) -> None:
        """Ends it with an error, in the event loop's thread."""
        self._events.put_nowait(error)

    def cancel(self) -> None:
        """Frees the slots of rows that have not ended."""
        for handle in self.handles:
            if not handle.done:
                handle.cancel()

    @property
    def prompt_tokens(self) -> int:
        """Of its prompts, each once, and of what was given of their canvases."""
        seen = {id(checked.work.prompt): checked.work for _, checked in self.asked.rows}
        given = sum(int((work.canvas >= 0).sum()) for work in seen.values() if work.canvas is not None)
        return given + sum(len(work.prompt) for work in seen.values())

    def generated(self, brought: Brought) -> int:
        """Tokens of a row's answer that were open."""
        assert brought.answer is not None
        count, given = len(brought.answer.tokens), self.asked.rows[brought.index][1].work.canvas
        return count if given is None else int((given[:count] < 0).sum())

    def _listener(self, index: int) -> Callable[[Update], None]:
        def listen(update: Update) -> None:  # in the engine's thread
            if self.first_text is None and update.text:
                self.first_text = time.monotonic() - self.began
            if self._streams or update.answer is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: the server ended before this row
                    self._loop.call_soon_threadsafe(self._events.put_nowait, (index, update))

        return listen

    async def _watch(self, receive: Receive) -> None:
        await until_gone(receive)
        self.interrupt(Gone())


class _View:
    """A row as its client sees it: the part of the canvas that was asked for."""

    def __init__(self, desk: Desk, asked: Asked):
        tokenizer, config = desk.loaded.tokenizer, desk.loaded.config
        assert isinstance(tokenizer, Tokenizer)
        self._tokenizer, self._asked = tokenizer, asked
        self._end_ids = () if asked.is_hole else config.end_ids
        self._keep = asked.keep
        self._text = SettledText(tokenizer, self._end_ids, asked.stops)

    def seen(self, index: int, update: Update) -> Brought:
        if self._keep is None:
            return Brought(index, update.text, update.canvas, update.answer)
        canvas = update.canvas.cut(self._keep)
        if update.answer is None:
            return Brought(index, self._text.more(canvas.tokens, canvas.masked), canvas, None)
        answer = self._answer(update.answer, canvas)
        return Brought(index, self._text.rest(answer.text), canvas, answer)

    def _answer(self, whole: Answer, canvas: Canvas) -> Answer:
        facts = {name: getattr(whole, name) for name in ("stop_reason", "forwards", "refine_forwards", "seconds")}
        answer = answer_of(
            self._tokenizer,
            canvas,
            end_ids=self._end_ids,
            given=None,
            stop=self._asked.stops,
            compile_seconds=0.0,
            **facts,
        )
        return dataclasses.replace(answer, finish="stop") if self._asked.is_hole else answer
