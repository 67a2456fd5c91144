"""An engine over several processes: process 0 schedules, and all run the same rounds.

Before a round process 0 sends every other a note of one shape, and behind it the plan where rows begin or end; a plan's
shape is the lane's own. All device work of a process is in one thread, in the same order everywhere; JAX's thread guard
watches that. An idle pod is sent a note every second: nobody waits in a collective for longer.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lrd_jax.engine.rows import ModelRows, SeenRow
from lrd_jax.engine.turns import awaited
from lrd_jax.errors import Refused

T = TypeVar("T")

IDLE, CALL, ROUND, STOP = range(4)


class Link:
    """What process 0 tells the others; lanes are known by the order in which they were started."""

    def __init__(self):
        self.lanes: list[ModelRows] = []

    def tell(
        self, kind: int, lane: int = 0, counts: tuple[int, int, int] = (0, 0, 0), plan: np.ndarray | None = None
    ) -> None:
        """On process 0.

        Args:
          counts: what `ModelRows.advance` takes.
        """
        _broadcast(np.array([kind, lane, *counts, plan is not None], np.int32))
        if plan is not None:
            _broadcast(plan)

    def hear(self) -> tuple[int, int, tuple[int, int, int], np.ndarray | None]:
        """On the others: what process 0 tells."""
        kind, lane, n, keep, length, planned = _broadcast(np.zeros(6, np.int32)).tolist()
        plan = None
        if planned:
            layout = self.lanes[lane].layout
            plan = _broadcast(np.zeros((layout.slots, layout.columns), np.int32))
        return kind, lane, (n, keep, length), plan

    def idle(self) -> None:
        self.tell(IDLE)

    def call(self) -> None:
        self.tell(CALL)

    def stop(self) -> None:
        self.tell(STOP)


class LeadingRows:
    """`lrd_jax.engine.scheduler.Rows` of process 0."""

    def __init__(self, rows: ModelRows, link: Link):
        self._rows, self._link, self._lane = rows, link, link.lanes.index(rows)

    def begin(self, placed: Mapping[int, Any], ended: Sequence[int], n: int, keep: int) -> jax.Array:
        """See `Rows`."""
        plan = self._rows.plan(placed, ended)
        counts = n, keep, self._rows.needed
        self._link.tell(ROUND, self._lane, counts, plan)
        if plan is not None:
            self._rows.place(plan)
        return self._rows.advance(*counts)

    def collect(self, round_: jax.Array) -> tuple[int, list[SeenRow]]:
        """See `Rows`."""
        return self._rows.collect(round_)


class Followers:
    """`lrd_jax.engine.turns.Turns` of the other processes: a thread that does what process 0 tells."""

    def __init__(self, link: Link):
        self.changed = threading.Condition()
        self.failure: BaseException | None = None  # one that fails ends the process
        self._link = link
        self._calls: list[Callable[[], None]] = []
        self._lanes = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """function(), when process 0 calls too."""
        run, found = awaited(function)
        with self.changed:
            self._calls.append(run)
            self.changed.notify_all()
        return found.result()

    def join(self, lane: Any) -> None:
        self._lanes += 1

    def leave(self, lane: Any) -> None:
        """Of the last lane: waits for process 0 to have closed its own."""
        self._lanes -= 1
        if self._lanes <= 0:
            self.close()

    def close(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        with guarded():
            while True:
                kind, lane, counts, plan = self._link.hear()
                if kind == STOP:
                    return
                if kind == CALL:
                    with self.changed:
                        self.changed.wait_for(lambda: bool(self._calls))
                        call = self._calls.pop(0)
                    call()
                if kind == ROUND:
                    rows = self._link.lanes[lane]
                    if plan is not None:
                        rows.place(plan)
                    jax.block_until_ready(rows.advance(*counts))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """In the one thread of a pod's device work: any other that tries some is refused by JAX."""
    with jax.thread_guard(True):
        yield


def is_pod(params: Any) -> bool:
    """Whether the parameters lie over several processes."""
    return not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params))


def refuse_elsewhere() -> None:
    """Raises where this is not the process that schedules."""
    if jax.process_index():
        raise Refused(f"this is process {jax.process_index()} of a pod: submit to the engine on process 0")


def _broadcast(array: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.broadcast_one_to_all(array))
