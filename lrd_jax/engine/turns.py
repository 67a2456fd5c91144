"""The one thread that works on a device, and whose turn it is. Plain Python, no JAX."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from lrd_jax.errors import Refused

T = TypeVar("T")

HEARTBEAT_SECONDS = 1.0  # between two words to a link while all rest


class Lane(Protocol):
    """What takes turns, see `lrd_jax.engine.scheduler`."""

    @property
    def busy(self) -> bool: ...
    def begin(self) -> bool: ...
    def collect(self) -> float: ...
    def tell(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...


class Link(Protocol):
    """Who else is to know of the thread's work, see `lrd_jax.engine.pod`."""

    def call(self) -> None: ...
    def idle(self) -> None: ...
    def stop(self) -> None: ...


def awaited(function: Callable[[], T]) -> tuple[Callable[[], None], Future[T]]:
    """What another thread is to run, and where its value or its error will be."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(function())
        except BaseException as error:  # whoever asked hears of it
            found.set_exception(error)

    return run, found


class Turns:
    """A thread that gives lanes turns of one device: the next is whose turns took the least time so far.

    A lane that comes back from a rest begins where the others are: it is owed nothing for it. What a turn showed is
    told while the device works on the next one.

    Attributes:
      changed: to be notified of when a lane may have become busy; its lock is the lanes'.
      failure: what ended the thread before its time.
    """

    def __init__(self, link: Link | None = None, guard: Callable[[], contextlib.AbstractContextManager] | None = None):
        """
        Args:
          link: told before a call, when all rest, and at the end.
          guard: of the thread's work.
        """
        self.changed = threading.Condition()
        self.failure: BaseException | None = None
        self._link, self._guard = link, guard or contextlib.nullcontext
        self._used: dict[Lane, float] = {}  # seconds
        self._busy: list[Lane] = []  # as of the last look
        self._calls: list[Callable[[], None]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """function(), run by the thread between two turns; what it raises is raised here."""
        run, found = awaited(function)
        with self.changed:
            if self._closing:
                raise Refused("the engine is closed")
            self._calls.append(run)
            self.changed.notify_all()
        return found.result()

    def join(self, lane: Lane) -> None:
        """The lane takes turns from now on."""
        with self.changed:
            self._used[lane] = 0.0

    def leave(self, lane: Lane) -> None:
        """Waits until the lane has nothing to do, and takes it out; with the last one the thread ends."""
        with self.changed:
            self.changed.wait_for(lambda: self._closing or not lane.busy)
            self._used.pop(lane, None)
            if self._used:
                return
        self.close()

    def close(self) -> None:
        """Ends the thread once no lane is busy, and waits for that."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._guard():
                self._take_turns()
                if self._link is not None:
                    self._link.stop()
        except BaseException as error:  # nobody would hear of it here
            with self.changed:
                self._closing, self.failure = True, error
                calls, self._calls = self._calls, []
                self.changed.notify_all()
            for lane in self._used:
                lane.fail(error)
            for call in calls:
                call()

    def _take_turns(self) -> None:
        before: Lane | None = None
        while True:
            lane = self._next(wait=before is None)
            begun = lane is not None and lane.begin()
            if before is not None:
                before.tell()
            elif lane is None:
                return
            if lane is not None and begun:
                self._used[lane] += lane.collect()
            before = lane

    def _next(self, wait: bool) -> Lane | None:
        """The lane whose turn it is.

        Args:
          wait: until there is one, or the thread is to end; else None where there is none now.
        """
        while True:
            with self.changed:
                self.changed.notify_all()  # who leaves waits for a lane to rest
                busy = [lane for lane in self._used if lane.busy]
                calls, self._calls = self._calls, []
                rests = not (busy or calls) and wait and not self._closing
                woken = rests and self.changed.wait(None if self._link is None else HEARTBEAT_SECONDS)
                self._catch_up(busy)
            if rests:
                if self._link is not None and not woken:
                    self._link.idle()
                continue
            for call in calls:
                if self._link is not None:
                    self._link.call()
                call()
            if busy or not calls:
                return min(busy, key=self._used.__getitem__, default=None)

    def _catch_up(self, busy: list[Lane]) -> None:
        at = min((self._used[lane] for lane in busy if lane in self._busy), default=0.0)
        for lane in busy:
            if lane not in self._busy:
                self._used[lane] = max(self._used[lane], at)
        self._busy = busy
