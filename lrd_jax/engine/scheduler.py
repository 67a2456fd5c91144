"""Which request is in which slot: first come, first served. Plain Python over two small protocols, no JAX.

A lane is a number of slots that decode together. A turn of it is

    begin    ends rows that were cancelled or are late, fills free slots from the queue, starts a round of forwards
    collect  waits for the round; slots of rows that ended are free
    tell     hands what the round showed to those who asked

Between `begin` and `collect` the device works; there falls the `tell` of the turn before.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lrd_jax.errors import Refused

PATIENCE_SECONDS = 0.05  # a round is meant to take no longer: so long waits a cancel, an update, a newcomer


class Ticket(Protocol):
    """One request as a lane knows it. Its methods are called by the thread that gives the turns."""

    deadline: float | None  # on the lane's clock; None: it may take as long as it takes
    every: int | None  # forwards a round at most, while it runs; None: as many as the lane likes

    def begun(self, now: float) -> None:
        """It has a slot."""
        ...

    def seen(self, row: Any, now: float) -> None:
        """Its row after a round."""
        ...

    def ended(self, row: Any, reason: str | None, now: float) -> None:
        """Its last row, None where it never had a slot; and why it was taken out, None where it ended by itself."""
        ...

    def failed(self, error: BaseException) -> None:
        """The lane broke down, and it with it."""
        ...


class Row(Protocol):
    """What a round shows of a slot."""

    @property
    def running(self) -> bool: ...


class Rows(Protocol):
    """Slots of a model."""

    def begin(self, placed: Mapping[int, Any], ended: Sequence[int], n: int, keep: int) -> Any:
        """Starts a round and does not wait for it.

        Args:
          placed: tickets that begin, by slot.
          ended: slots whose rows are to rest.
          n: forwards at most.
          keep: the round ends early once no more than so many rows run.
        """
        ...

    def collect(self, round_: Any) -> tuple[int, Sequence[Row]]:
        """Waits for a round: the forwards that it took, and a row for each slot."""
        ...


@dataclasses.dataclass
class Counts:
    """What a lane has done so far, and what it holds.

    Attributes:
      slots, running, waiting: now.
      rounds, forwards: of the device loop.
      rows: running rows of all forwards, added up; rows / (forwards * slots) is how full the slots were.
      ended: requests that left, by reason.
      seconds: of rounds, from their start to their end.
    """

    slots: int
    running: int = 0
    waiting: int = 0
    rounds: int = 0
    forwards: int = 0
    rows: int = 0
    ended: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0


class Scheduler:
    """One lane.

    `submit`, `cancel` and `counts` may be called by any thread; `begin`, `collect` and `tell` by one.

    Attributes:
      busy: there is something to do.
    """

    def __init__(
        self,
        rows: Rows,
        slots: int,
        queue: int,
        *,
        every: int | None = None,
        refill: int = 1,
        changed: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
          queue: requests that may wait for a slot.
          every: forwards a round at most; None: as many as patience allows.
          refill: free slots for which a round ends early while requests wait.
          changed: notified of what is submitted and cancelled; its lock guards the lane.
        """
        self._rows, self._slots, self._queue, self._every, self._refill = rows, slots, queue, every, refill
        self.changed = changed or threading.Condition()
        self._clock = clock
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._at: dict[int, Ticket] = {}  # slot -> who is in it
        self._last: dict[int, Any] = {}  # slot -> its row after the last round
        self._cancelled: set[int] = set()  # ids of tickets
        self._news: list[tuple[Ticket, str, tuple]] = []  # what `tell` will tell: to whom, by which method, what
        self._round: Any = None
        self._began = 0.0
        self._n, self._pace = 1, 0.0  # forwards of the next round; seconds of a forward
        self._counts = Counts(slots)
        self._closed = ""  # why no more requests are taken

    @property
    def busy(self) -> bool:
        with self.changed:
            return bool(self._waiting or self._at or self._news)

    def submit(self, ticket: Ticket) -> None:
        """Puts a request at the end of the queue.

        Raises:
          Refused: the queue is full, or the lane closed.
        """
        with self.changed:
            if self._closed:
                raise Refused(self._closed)
            if len(self._waiting) >= self._queue:
                raise Refused(
                    f"the engine's queue is full: {len(self._at)} requests run in {self._slots} slots and "
                    f"{len(self._waiting)} wait; come again later, or give it a longer queue"
                )
            self._waiting.append(ticket)
            self.changed.notify_all()

    def cancel(self, ticket: Ticket) -> bool:
        """Takes a request out; whether it was still there. A running one ends with the round."""
        with self.changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._leave(ticket, None, "cancelled")
            elif ticket in self._at.values():
                self._cancelled.add(id(ticket))
            else:
                return False
            self.changed.notify_all()
            return True

    def cancel_all(self) -> None:
        with self.changed:
            for ticket in (*self._waiting, *self._at.values()):
                self.cancel(ticket)

    @property
    def counts(self) -> Counts:
        with self.changed:
            now = {"running": len(self._at), "waiting": len(self._waiting), "ended": self._counts.ended.copy()}
            return dataclasses.replace(self._counts, **now)

    def begin(self) -> bool:
        """Plans a round and starts it; False where no row runs."""
        with self.changed:
            now = self._clock()
            ended = self._taken_out(now)
            placed = self._placed(now)
            if not self._at and not ended:
                return False
            keep = self._slots - min(self._refill, len(self._waiting)) if self._waiting else 0
            n = min([self._n, *(ticket.every for ticket in self._at.values() if ticket.every)])
        self._began = self._clock()
        self._round = self._rows.begin(placed, ended, n, keep)
        return True

    def collect(self) -> float:
        """Waits for the round; its seconds."""
        ran, rows = self._rows.collect(self._round)
        now = self._clock()
        seconds = now - self._began
        with self.changed:
            self._counts.rounds += 1
            self._counts.forwards += ran
            self._counts.seconds += seconds
            self._pace_by(ran, seconds)
            for slot, ticket in list(self._at.items()):
                row = self._last[slot] = rows[slot]
                self._counts.rows += ran
                if row.running:
                    self._news.append((ticket, "seen", (row, now)))
                else:
                    del self._at[slot], self._last[slot]
                    self._leave(ticket, row, None)
        return seconds

    def tell(self) -> None:
        """Hands out what the rounds so far have shown."""
        with self.changed:
            news = list(self._news)
        for ticket, method, about in news:
            getattr(ticket, method)(*about)
        with self.changed:
            del self._news[: len(news)]

    def close(self) -> None:
        """No more requests are taken."""
        with self.changed:
            self._closed = "the engine is closed"

    def fail(self, error: BaseException) -> None:
        """Ends everybody who waits or runs."""
        with self.changed:
            self._closed = f"the engine has failed: {error}"
            left = {*self._at.values(), *self._waiting, *(ticket for ticket, *_ in self._news)}
            self._at.clear()
            self._waiting.clear()
            self._news.clear()
        for ticket in left:  # those that have their answers keep them
            ticket.failed(error)

    def _taken_out(self, now: float) -> list[int]:
        """Ends what was cancelled or is late; the slots that this frees."""
        for ticket in [ticket for ticket in self._waiting if _is_late(ticket, now)]:
            self._waiting.remove(ticket)
            self._leave(ticket, None, "deadline")
        freed = []
        for slot, ticket in list(self._at.items()):
            reason = "cancelled" if id(ticket) in self._cancelled else "deadline" if _is_late(ticket, now) else None
            if reason is not None:
                del self._at[slot]
                freed.append(slot)
                self._leave(ticket, self._last.pop(slot), reason)
        return freed

    def _placed(self, now: float) -> dict[int, Ticket]:
        placed = {}
        for slot in range(self._slots):
            if slot not in self._at and self._waiting:
                placed[slot] = self._at[slot] = self._waiting.popleft()
                self._news.append((placed[slot], "begun", (now,)))
        return placed

    def _leave(self, ticket: Ticket, row: Any, reason: str | None) -> None:
        self._cancelled.discard(id(ticket))
        self._counts.ended[reason or "ended"] += 1
        self._news.append((ticket, "ended", (row, reason, self._clock())))

    def _pace_by(self, ran: int, seconds: float) -> None:
        """Sets the length of the next round by how long forwards took."""
        if ran:
            pace = seconds / ran
            self._pace = pace if not self._pace else 0.7 * self._pace + 0.3 * pace
        fits = int(PATIENCE_SECONDS / self._pace) if self._pace else 1
        self._n = max(1, min(2 * self._n, fits, self._every or fits))


def _is_late(ticket: Ticket, now: float) -> bool:
    return ticket.deadline is not None and now >= ticket.deadline
