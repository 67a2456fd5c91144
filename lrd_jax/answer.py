"""What a generator gives: a canvas while it settles, and an answer with its facts.

Axes: G canvas, S `DecodeConfig.step_limit`.
"""

import dataclasses
from typing import Any

import numpy as np

from lrd_jax.decoding.state import Trace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One decoded answer.

    Attributes:
      text: up to the first end token or stop string.
      tokens: generated ids, those that the text needs.
      forwards, refine_forwards: see `DecodeResult`.
      stop_reason: "finished", "settled", "end-of-text", "step-limit", "non-finite" (see `StopReason`) or "cancelled".
      stop: the stop string that the text was cut at.
      finish: "stop" where an end token or a stop string ended the text, "length" where the canvas did.
      holes: what each hole of a canvas was filled with, where one was given; the text is then all of it.
      seconds: of decoding alone: no loading, compiling or drawing; an equal share of the batch's.
      compile_seconds: of what came before the first forward, shared likewise; small where the compile was cached.
      canvas: int `[G]`, all of it, with what stands behind the end.
      trace: the row's, NumPy arrays `[S]`, where the config records one.
    """

    text: str
    tokens: list[int]
    forwards: int
    refine_forwards: int
    stop_reason: str
    stop: str | None
    finish: str
    seconds: float
    compile_seconds: float
    holes: tuple[str, ...] = ()
    canvas: np.ndarray = dataclasses.field(repr=False, compare=False)
    trace: Trace | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def tokens_per_second(self) -> float:
        return len(self.tokens) / self.seconds if self.seconds else 0.0

    @property
    def complete(self) -> bool:
        return self.stop_reason not in ("non-finite", "cancelled")

    @property
    def facts(self) -> str:
        """One line for people."""
        return (
            f"{self.forwards} forwards ({self.refine_forwards} refining) | {self.stop_reason} | "
            f"{self.seconds:.2f} s (+ {self.compile_seconds:.1f} s compiling) | {self.tokens_per_second:.0f} tokens/s"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, without canvas and trace."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}
        return {**fields, "tokens_per_second": self.tokens_per_second}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas:
    """What a row looks like between two forwards.

    Attributes:
      tokens: int `[G]`; ids where not masked.
      masked: bool `[G]`.
      guesses: int `[G]`, the likeliest token of each position of the active window, -1 where there is no belief.
      steps: the row's forwards so far; guidance counts as one.
      refining: the next forward begins in refinement.
      running: the row goes on.
    """

    tokens: np.ndarray
    masked: np.ndarray
    guesses: np.ndarray
    steps: int
    refining: bool
    running: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """What one round of forwards has brought to one prompt.

    Attributes:
      index: of the prompt.
      text: what has settled since the last update; all of them together are the answer's text.
      answer: once the row has ended, in its last update.
    """

    index: int
    text: str
    canvas: Canvas
    answer: Answer | None = None
