"""Many prompts, no idle row: a decode that never stops, whose rows requests take in turn."""

import atexit
import itertools
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import to_table
from lrd_jax.engine.handle import EngineTicket, Handle, Listen
from lrd_jax.engine.numbers import numbers_of
from lrd_jax.engine.pod import Followers, LeadingRows, Link, guarded, is_pod, refuse_elsewhere
from lrd_jax.engine.request import Checked, Request, checked
from lrd_jax.engine.rows import ModelRows
from lrd_jax.engine.scheduler import Counts, Rows, Scheduler
from lrd_jax.engine.turns import Turns
from lrd_jax.errors import Refused, check_function
from lrd_jax.generate import Generator
from lrd_jax.pods import agree, is_first

T = TypeVar("T")


class Engine:
    """Answers requests as they come, each as `Generator` answers it alone.

        with Engine(load("lrd-tiny-soft"), DecodeConfig.lrd(64)) as engine:
            handles = [engine.submit(Request(prompt=prompt)) for prompt in prompts]
            answers = [handle.result() for handle in handles]

    A fixed number of rows decodes together; a row that ends gives its slot to the next request. One thread of its own
    does all that concerns the device. With parameters over several processes every one of them makes the engine, with
    the same arguments, and process 0 submits. Leaving the `with` waits for the answers, unless an exception leaves it.

    Attributes:
      loaded: the model, its parameters and tokenizer.
      config: of the decoder; its gen_length is the canvas.
      slots: rows that decode together.
      prompt_length: tokens that a prompt may have.
      prompt_lengths: positions of prompt that a round may compute, ascending; the last is prompt_length.
      compile_seconds: that the start took.
    """

    def __init__(
        self,
        loaded: Loaded,
        config: DecodeConfig,
        *,
        slots: int = 16,
        prompt_length: int | Sequence[int] | None = None,
        canvas: int | None = None,
        queue: int = 1024,
        every: int | None = None,
        beside: "Engine | None" = None,
    ):
        """Compiles, and is ready.

        Args:
          config: with plain numbers, which a request may change for itself, and no trace.
          prompt_length: every forward computes so many positions of prompt. Several: a round computes the shortest of
            them that holds the prompts of its rows, and each is compiled. None: all that the context leaves.
          canvas: positions that a request may ask for at most; None: the config's gen_length, which is what a request
            gets that asks for none.
          queue: requests that may wait for a slot; more are refused.
          every: forwards between two updates at most. None: as many as fit into 0.05 seconds.
          beside: another engine on the same device: the two then take turns.

        Raises:
          Refused: what `Generator` refuses; numbers one a row; sizes that do not fit the model.
        """
        for name, size in (("slots", slots), ("queue", queue)):
            check_count(name, size)
        lengths = _lengths(prompt_length)
        for name, size in (("canvas", canvas), ("every", every)):
            if size is not None:
                check_count(name, size)
        if not isinstance(config, DecodeConfig):
            raise Refused(f"config must be a DecodeConfig, got {type(config).__name__}; try DecodeConfig.lrd(64)")
        if not isinstance(beside, Engine | None):
            raise Refused(f"beside must be another Engine, or None, got {beside!r:.80}")
        numbers_of(config)
        if config.trace:
            raise Refused("an engine keeps no traces: leave trace out, or decode with a Generator")
        self._length = config.gen_length
        if canvas is not None and canvas < self._length:
            raise Refused(f"canvas={canvas} must be at least the config's gen_length={self._length}")
        config = config if canvas is None else config.replace(gen_length=canvas)
        self._generator = Generator(loaded, config)
        room = self._generator.room
        self.prompt_lengths = lengths or (room,)
        self.prompt_length = self.prompt_lengths[-1]
        if self.prompt_length > room:
            raise Refused(
                f"prompt_length={self.prompt_length} + canvas of {config.gen_length} exceed the model's context of "
                f"{loaded.config.max_length}: {room} is left for a prompt"
            )
        self.loaded, self.config, self.slots = loaded, config, slots
        self._numbers = itertools.count()
        began = time.perf_counter()
        self._link = beside._link if beside is not None else Link() if is_pod(loaded.params) else None
        if self._link is not None:
            sizes = {"slots": slots, "prompt_length": list(self.prompt_lengths)}
            agree("the engine's arguments", {**sizes, "config": to_table(config)})
        self._turns = beside._turns if beside is not None else _turns(self._link)
        try:
            rows = self._turns.call(self._start)
        except BaseException:
            if beside is None:
                self._turns.close()
            raise
        self.compile_seconds = time.perf_counter() - began
        refill = max(1, slots // 8)
        self._lane = Scheduler(rows, slots, queue, every=every, refill=refill, changed=self._turns.changed)
        self._turns.join(self._lane)
        atexit.register(_close, weakref.ref(self))

    def submit(self, request: Request, *, listen: Listen | None = None, every: int | None = None) -> Handle:
        """Puts a request at the end of the queue and does not wait. May be called by any thread.

        Args:
          listen: called with every `Update`, by the engine's thread: it must not take long nor wait for the engine, and
            what it raises ends all. For asyncio, `lambda update: loop.call_soon_threadsafe(queue.put_nowait, update)`.
          every: forwards between two updates at most, while this request runs.

        Raises:
          Refused: a request that cannot be decoded, a full queue, or an engine that is closed or has failed.
        """
        return self.put(self.check(request), listen=listen, every=every)

    def check(self, request: Request) -> Checked:
        """The request, ready to be put; raises as `submit` does for one that cannot be decoded."""
        if self._link is not None:
            refuse_elsewhere()
        return checked(request, self._generator, self.prompt_length, self._length)

    def put(self, asked: Checked, *, listen: Listen | None = None, every: int | None = None) -> Handle:
        """`submit` of a request that `check` gave."""
        if not isinstance(asked, Checked):
            raise Refused(f"asked must be what check gives, got a {type(asked).__name__}; submit takes a Request")
        if listen is not None:
            check_function(listen, "listen")
        if every is not None:
            check_count("every", every)
        now, special = time.monotonic(), self.loaded.config
        ticket = EngineTicket(
            next(self._numbers),
            asked.work,
            tokenizer=self._generator.tokenizer,
            end_ids=special.end_ids if asked.work.canvas is None else (),
            forwards_a_step=1 if self.config.cfg_scale is None else 2,
            canvas=np.full(asked.work.length, special.mask_id, np.int32),
            stop=asked.stop,
            submitted=now,
            deadline=None if asked.deadline is None else now + asked.deadline,
            listen=listen,
            every=every,
        )
        self._lane.submit(ticket)
        return Handle(ticket, self._lane.cancel)

    @property
    def counts(self) -> Counts:
        """What it has done, and what it holds now."""
        return self._lane.counts

    @property
    def failure(self) -> BaseException | None:
        """What ended its thread, once it has failed; it then takes no requests."""
        return self._turns.failure

    def call(self, function: Callable[[], T]) -> T:
        """function(), which may use the device: run by the engine's thread between two rounds; waits for it.

        Raises:
          Refused: the engine is closed, or of a pod; or whatever the function raises.
        """
        if self._link is not None:
            raise Refused("the engine is of a pod, whose processes would all have to make this call")
        return self._turns.call(function)

    def close(self, drain: bool = True) -> None:
        """Takes no more requests, and waits for those that it has; closing twice does nothing.

        Args:
          drain: answer them all; False: cancel them.
        """
        self.stop(drain)
        self._turns.leave(self._lane)

    def stop(self, drain: bool = True) -> None:
        """As `close`, and does not wait."""
        self._lane.close()
        if not drain:
            self._lane.cancel_all()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close(drain=error[0] is None)

    def _start(self) -> Rows:
        sizes = (self.config, self.slots, self.prompt_lengths)
        if self._link is None:
            return ModelRows(self.loaded.model, self.loaded.params, *sizes)
        rows = ModelRows(
            self.loaded.model, self.loaded.params, *sizes, meet=lambda: agree("an engine that compiles", {})
        )
        self._link.lanes.append(rows)
        return LeadingRows(rows, self._link)


def _turns(link: Link | None) -> Turns | Followers:
    if link is None:
        return Turns()
    return Turns(link, guarded) if is_first() else Followers(link)


def _lengths(asked: int | Sequence[int] | None) -> tuple[int, ...]:
    """Those of prompts that were asked for, ascending; none for None."""
    if asked is None:
        return ()
    lengths: list[Any] = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    if not lengths:
        raise Refused("prompt_length is empty: name one length or more, or None for all that the context leaves")
    for length in lengths:
        check_count("prompt_length", length)
    return tuple(sorted(set(lengths)))


def check_count(name: str, size: Any) -> None:
    """Raises Refused for what is no integer of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise Refused(f"{name}={size!r} must be an integer of at least 1")


def _close(engine: "weakref.ref[Engine]") -> None:
    there = engine()
    if there is not None:
        there.close(drain=False)
