"""Times of one decoder: compiled and warmed up first, then run as often as asked."""

import dataclasses
import functools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lrd_jax.decoding.loop import Decoder
from lrd_jax.decoding.request import check_request
from lrd_jax.models.transformer import Params
from lrd_jax.pods import fetch
from lrd_jax.sharding import batch_sharding, mesh_of, shard_batch
from lrd_jax.text import answer_lengths


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and the range around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def times(self, factor: float) -> "Spread":
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclasses.dataclass(frozen=True)
class Run:
    """One decode, here or in a reference.

    Attributes:
      tokens: `[B, G]`.
      forwards: of the row that took most.
      seconds: from the call to the last token.
    """

    tokens: list[list[int]]
    forwards: int
    seconds: float


class Subject:
    """A decoder with its arguments, compiled and run once.

    The compiled program is called as it is: a `lrd_jax.Generator` looks in between forwards, which would be timed too.
    """

    def __init__(self, name: str, decoder: Decoder, params: Params, prompt: np.ndarray):
        self.name = name
        self._special = decoder.model.config
        key = jax.random.key(0) if decoder.config.draws else None
        request = check_request(prompt, None, key, None, None, decoder.config, self._special)
        mesh = mesh_of(params)
        if mesh is not None:
            request = shard_batch(request, mesh)
        began = time.perf_counter()
        compiled = decoder.lower(params, *prompt.shape, functools.partial(_on_rows, mesh)).compile()
        self.compile_seconds = time.perf_counter() - began
        memory = compiled.memory_analysis()
        self.memory_bytes = None if memory is None else _planned(memory)
        self._decode = functools.partial(compiled, params, request, decoder.config)
        self.first = self._run()
        self.runs: list[Run] = []

    def repeat(self) -> None:
        """One more timed run."""
        self.runs.append(self._run())

    def _run(self) -> Run:
        began = time.perf_counter()
        result = jax.block_until_ready(self._decode())
        seconds = time.perf_counter() - began
        tokens, forwards = fetch((result.tokens, result.forwards))
        return Run(tokens.tolist(), int(forwards.max()), seconds)

    def to_json(self) -> dict[str, Any]:
        """What was measured, JSON-ready; see docs/benchmark.md for each field."""
        seconds = Spread.of([run.seconds for run in self.runs])
        return {
            "decoder": self.name,
            "forwards": self.first.forwards,
            "seconds": dataclasses.asdict(seconds),
            "seconds_per_forward": dataclasses.asdict(seconds.times(1 / self.first.forwards)),
            "tokens": self.generated,
            "tokens_per_second": self.generated / seconds.median,
            "compile_seconds": self.compile_seconds,
            "compiled_memory_bytes": self.memory_bytes,
        }

    @property
    def generated(self) -> int:
        """Tokens of all rows, each counted to its first end."""
        return int(answer_lengths(self.first.tokens, self._special.end_ids).sum())


def _on_rows(mesh: Mesh | None, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = None if mesh is None else batch_sharding(mesh)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, by round: all are warmed up once, then take turns, so that a noisy moment hits them alike.

    What a run returns is waited for.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def peak_memory() -> dict[str, Any]:
    """The most memory that was ever held, and which memory was counted: the device's, else the process's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return {"bytes": stats["peak_bytes_in_use"], "counted": "device memory"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "counted": "resident set of the process",
    }


def _planned(memory) -> int:
    """Bytes that the compiler plans for one decode: weights, prompts, temporaries and answer."""
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
