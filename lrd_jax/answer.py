"""What a generator gives: a canvas while it settles, and an answer with its facts.

Axes: G canvas, S `DecodeConfig.step_limit`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrd_jax.decoding.state import Trace
from lrd_jax.text import Tokenizer, answer_lengths, first_stop, texts_of_holes, tokens_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One decoded answer.

    Attributes:
      text: up to the first end token or stop string.
      tokens: generated ids, those that the text needs.
      forwards, refine_forwards: see `DecodeResult`.
      stop_reason: "finished", "settled", "end-of-text", "step-limit", "non-finite" (see `StopReason`), "cancelled",
        or of an engine "deadline".
      stop: the stop string that the text was cut at.
      finish: "stop" where an end token or a stop string ended the text, "length" where the canvas did.
      holes: what each hole of a canvas was filled with, where one was given; the text is then all of it.
      seconds: of decoding alone: no loading, compiling or drawing; an equal share of the batch's. Of an engine: from
        the row's first round to its end.
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
        return self.stop_reason not in ("non-finite", "cancelled", "deadline")

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
class Beliefs:
    """What the model believed of a row, as an engine keeps it.

    Attributes:
      confidence: float `[G]`, probability of each guess of the active window at the last forward, 0 elsewhere.
      logprob: float `[G]`, log-probability of each token at the forward that committed it, 0 where none has. Not a
        likelihood of the text: each was sure of itself beside what was there then.
      divergence: D_t of the last forward, nats; inf at a block's first.
      entropy: mean over the masked positions of the window before its commit, nats.
    """

    confidence: np.ndarray
    logprob: np.ndarray
    divergence: float
    entropy: float


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
      beliefs: of an engine's rows that have begun.
    """

    tokens: np.ndarray
    masked: np.ndarray
    guesses: np.ndarray
    steps: int
    refining: bool
    running: bool
    beliefs: Beliefs | None = None

    def cut(self, length: int) -> "Canvas":
        """Its first positions alone."""
        arrays = {name: getattr(self, name)[:length] for name in ("tokens", "masked", "guesses")}
        beliefs = self.beliefs
        if beliefs is not None:
            told = {"confidence": beliefs.confidence[:length], "logprob": beliefs.logprob[:length]}
            beliefs = dataclasses.replace(beliefs, **told)
        return dataclasses.replace(self, **arrays, beliefs=beliefs)


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


def answer_of(
    tokenizer: Tokenizer,
    canvas: Canvas,
    *,
    end_ids: Sequence[int],
    given: np.ndarray | None,
    stop: Sequence[str],
    stop_reason: str,
    forwards: int,
    refine_forwards: int,
    seconds: float,
    compile_seconds: float,
    trace: Trace | None = None,
) -> Answer:
    """The answer of a row that has ended, or that was left.

    Args:
      end_ids: tokens that end its text.
      given: int `[l]`, the canvas as it was given, -1 where it was open; None: all of it was.
      stop: strings, the first of which cuts the text.
      stop_reason, forwards, refine_forwards, seconds, compile_seconds, trace: as in `Answer`.
    """
    tokens = canvas.tokens if given is None else canvas.tokens[: len(given)]
    holes = () if given is None else texts_of_holes(tokenizer, given, tokens)
    if canvas.running and canvas.masked.any():
        tokens = tokens[: canvas.masked.argmax()]
    (length,) = answer_lengths(tokens[None], end_ids)
    text = tokenizer.decode(tokens[:length].tolist(), skip_special_tokens=True)
    end, cut_at = first_stop(text, stop)
    kept = tokens[:length].tolist()
    if cut_at is not None:
        kept = kept[: tokens_of(tokenizer, kept, end)]
    return Answer(
        text=text[:end],
        tokens=kept,
        forwards=forwards,
        refine_forwards=refine_forwards,
        stop_reason=stop_reason,
        stop=cut_at,
        finish="length" if cut_at is None and given is None and length == len(tokens) else "stop",
        holes=holes,
        seconds=seconds,
        compile_seconds=compile_seconds,
        canvas=canvas.tokens,
        trace=trace,
    )


def never_begun(canvas: np.ndarray, stop_reason: str = "cancelled") -> Answer:
    """Of a prompt whose turn had not come; canvas int `[G]`: all masked."""
    return Answer(
        text="",
        tokens=[],
        forwards=0,
        refine_forwards=0,
        stop_reason=stop_reason,
        stop=None,
        finish="length",
        seconds=0.0,
        compile_seconds=0.0,
        canvas=canvas,
    )
