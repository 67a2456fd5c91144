"""Many prompts of many lengths through engines of one device: lanes of like prompts, one after another."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, Self, TypeVar

from lrd_jax.answer import Answer
from lrd_jax.text import bucket_length

K = TypeVar("K")

WINDOW = 8  # requests that are with the engines, for every slot
_POLL_SECONDS = 0.05  # the oldest request may be the last to end


class Asked(Protocol):
    """A request that an engine has."""

    @property
    def done(self) -> bool: ...
    @property
    def prompt_tokens(self) -> int: ...
    def result(self, timeout: float | None = None) -> Answer: ...
    def cancel(self) -> bool: ...


class Asks(Protocol):
    """An engine."""

    def submit(self, request: Any, /) -> Asked: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Any, error: Any, where: Any, /) -> None: ...


def lanes(lengths: Mapping[K, int], room: int, slots: int) -> list[tuple[int, list[K]]]:
    """Prompts of like lengths together, the longest first: tokens that a prompt of the lane may have, and its keys.

    What would not fill the slots goes with the next longer ones, which spares a compile.

    Args:
      lengths: tokens of each prompt.
      room: most tokens that a prompt may have.
    """
    buckets: dict[int, list[K]] = {}
    for key, length in lengths.items():
        buckets.setdefault(bucket_length(length, room), []).append(key)
    found: list[tuple[int, list[K]]] = []
    for bucket in sorted(buckets, reverse=True):
        if found and len(buckets[bucket]) < slots:
            found[-1][1].extend(buckets[bucket])
        else:
            found.append((bucket, buckets[bucket]))
    return found


class Feed:
    """Keeps engines busy with more requests than they have slots; a context manager that closes them.

    The last rows of a lane go on while the engine of the next one fills.
    """

    def __init__(self, start: Callable[[int, Any], Asks], slots: int, *, keep: bool = False):
        """
        Args:
          start: an engine for prompts of so many tokens, which shares the device with another, if that is not None.
          slots: of an engine.
          keep: engines stay for the next call of `answered`; else one that has nothing left is closed, and its memory
            goes to the next.
        """
        self._start, self._keep, self._window = start, keep, WINDOW * slots
        self._engines: dict[int, Asks] = {}
        self._waiting: dict[Any, tuple[Asks, Asked]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def answered(self, lanes: Iterable[tuple[int, Iterable[tuple[K, Any]]]]) -> Iterator[tuple[K, Asked]]:
        """Every request by its key, as they end.

        Args:
          lanes: tokens that a prompt may have, and requests by key.

        Raises:
          ValueError: a request that the engine refuses, or an engine that fails.
        """
        try:
            for length, requests in lanes:
                engine = self._engine(length)
                for key, request in requests:
                    while len(self._waiting) >= self._window:
                        yield from self._ended(engine)
                    self._waiting[key] = engine, engine.submit(request)
            while self._waiting:
                yield from self._ended(None)
        finally:  # nothing is left, unless whoever asks has left
            for _, asked in self._waiting.values():
                asked.cancel()
            self._waiting.clear()

    def _engine(self, length: int) -> Asks:
        if length not in self._engines:
            beside = next(reversed(self._engines.values()), None)
            self._engines[length] = self._stack.enter_context(self._start(length, beside))
        return self._engines[length]

    def _ended(self, current: Asks | None) -> Iterator[tuple[Any, Asked]]:
        """What has ended, after a moment's patience; `current` is the engine that gets the next requests."""
        _, oldest = next(iter(self._waiting.values()))
        with contextlib.suppress(TimeoutError):
            oldest.result(_POLL_SECONDS)
        for key in [key for key, (_, asked) in self._waiting.items() if asked.done]:
            yield key, self._waiting.pop(key)[1]
        if not self._keep and len(self._engines) > 1:
            busy = [current, *(engine for engine, _ in self._waiting.values())]
            for length, engine in list(self._engines.items()):
                if engine not in busy:
                    self._engines.pop(length).close()
