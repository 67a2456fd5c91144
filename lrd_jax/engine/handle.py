"""What `submit` gives: the answer to come, and how far it is."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lrd_jax.answer import Answer, Canvas, Update, answer_of, never_begun
from lrd_jax.decoding.state import StopReason
from lrd_jax.engine.plan import Work
from lrd_jax.engine.rows import SeenRow
from lrd_jax.errors import Refused
from lrd_jax.text import SettledText, Tokenizer

Listen = Callable[[Update], Any]


class Handle:
    """One request in an engine. All of it may be used by any thread.

    Iterating over it gives an `Update` for every round so far unseen, several told as one where they came faster than
    they were taken; the last one brings the answer. Iterators of one handle share its updates.

    Attributes:
      index: the engine's how many-th request; that of its updates.
      prompt_tokens: of its prompt.
      submitted, begun, ended: when, in seconds of `time.monotonic`; None where it has not.
    """

    def __init__(self, ticket: "EngineTicket", cancel: Callable[["EngineTicket"], bool]):
        self._ticket, self._cancel = ticket, cancel

    @property
    def index(self) -> int:
        return self._ticket.index

    @property
    def prompt_tokens(self) -> int:
        return len(self._ticket.work.prompt)

    @property
    def submitted(self) -> float:
        return self._ticket.times["submitted"]

    @property
    def begun(self) -> float | None:
        return self._ticket.times.get("begun")

    @property
    def ended(self) -> float | None:
        return self._ticket.times.get("ended")

    @property
    def done(self) -> bool:
        """The answer is there, or the engine has failed."""
        return self._ticket.over

    def result(self, timeout: float | None = None) -> Answer:
        """Waits for the answer.

        Args:
          timeout: seconds; None: as long as it takes.

        Raises:
          TimeoutError: it is not there yet.
          Refused: the engine has failed; or a timeout that is no number.
        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
            raise Refused(f"timeout={timeout!r:.80} must be a number of seconds, or None")
        return self._ticket.result(timeout)

    def cancel(self) -> bool:
        """Ends it, as far as it is settled, with the stop reason "cancelled"; False where it had ended before."""
        return self._cancel(self._ticket)

    def __iter__(self) -> Iterator[Update]:
        while True:
            update = self._ticket.next_update()
            yield update
            if update.answer is not None:
                return


class EngineTicket:
    """A request as the scheduler knows it, and what its handle reads.

    Attributes:
      work: what its row begins with.
      deadline: on the clock of the engine; None: none.
      every: forwards a round at most, while it runs; None: as many as the lane likes.
      times: "submitted", "begun", "ended".
    """

    def __init__(
        self,
        index: int,
        work: Work,
        *,
        tokenizer: Tokenizer,
        end_ids: tuple[int, ...],
        forwards_a_step: int,
        canvas: np.ndarray,
        stop: tuple[str, ...],
        submitted: float,
        deadline: float | None,
        listen: Listen | None,
        every: int | None = None,
    ):
        """
        Args:
          canvas: int `[G]`, all masked.
          end_ids: tokens that end its text.
          listen: called with every update.
          every: forwards between two of them at most.
        """
        self.index, self.work, self.deadline, self.every = index, work, deadline, every
        self.times = {"submitted": submitted}
        self._tokenizer, self._end_ids, self._stop = tokenizer, end_ids, stop
        self._each, self._empty, self._listen = forwards_a_step, canvas, listen
        self._text = SettledText(tokenizer, end_ids, stop)
        self._news = threading.Condition()
        self._streams = False  # somebody iterates
        self._update: Update | None = None  # not yet taken
        self._answer: Answer | None = None
        self._error: BaseException | None = None

    @property
    def over(self) -> bool:
        return self._answer is not None or self._error is not None

    # What the scheduler says, in its thread.

    def begun(self, now: float) -> None:
        self.times["begun"] = now

    def seen(self, row: SeenRow, now: float) -> None:
        if self._listen is not None or self._streams:
            canvas = row.canvas.cut(self.work.length)
            self._tell(Update(index=self.index, text=self._text.more(canvas.tokens, canvas.masked), canvas=canvas))

    def ended(self, row: SeenRow | None, reason: str | None, now: float) -> None:
        self.times["ended"] = now
        if row is None:
            nothing = {"steps": 0, "refining": False, "running": False, "guesses": np.full(len(self._empty), -1)}
            canvas = Canvas(tokens=self._empty, masked=np.ones(len(self._empty), bool), **nothing)
            answer = never_begun(self._empty, reason or "cancelled")
        else:
            canvas = row.canvas.cut(self.work.length)
            answer = answer_of(
                self._tokenizer,
                canvas,
                end_ids=self._end_ids,
                given=self.work.canvas,
                stop=self._stop,
                stop_reason=StopReason(row.reason).text if reason is None else reason,
                forwards=row.steps * self._each,
                refine_forwards=row.refine_steps * self._each,
                seconds=now - self.times["begun"],
                compile_seconds=0.0,
            )
        self._tell(Update(index=self.index, text=self._text.rest(answer.text), canvas=canvas, answer=answer))

    def failed(self, error: BaseException) -> None:
        with self._news:
            self._error = None if self._answer is not None else error
            self._news.notify_all()

    # What the handle asks, in any thread.

    def result(self, timeout: float | None) -> Answer:
        with self._news:
            if not self._news.wait_for(lambda: self.over, timeout):
                raise TimeoutError(f"request {self.index} has not ended within {timeout} s")
            return self._had()

    def next_update(self) -> Update:
        with self._news:
            self._streams = True
            self._news.wait_for(lambda: self._update is not None or self.over)
            update, self._update = self._update, None
            if update is not None:
                return update
            answer = self._had()  # told before
            raise Refused(f"request {self.index} has told all its updates; result() gives its answer, {answer.facts}")

    def _had(self) -> Answer:
        if self._error is not None:
            raise Refused(f"the engine has failed: {self._error}") from self._error
        assert self._answer is not None
        return self._answer

    def _tell(self, update: Update) -> None:
        with self._news:
            before = self._update
            self._update = update if before is None else dataclasses.replace(update, text=before.text + update.text)
            self._answer = update.answer
            self._news.notify_all()
        if self._listen is not None:
            self._listen(update)
