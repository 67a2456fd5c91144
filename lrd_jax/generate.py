"""Texts in, answers out: the only code on one host that drives the decoding loop to its end.

Axes: B batch, P prompt, G canvas.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.answer import Answer, Canvas, Update
from lrd_jax.batching import filled
from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.state import DecodeState, StopReason, Trace
from lrd_jax.errors import Refused
from lrd_jax.text import (
    Message,
    SettledText,
    UnknownWords,
    answer_lengths,
    check_messages,
    decode_text,
    encode_chat,
    encode_text,
    first_stop,
    left_pad,
    pad_to_bucket,
    tokens_of,
    unknown_words,
)

_PATIENCE_SECONDS = 0.25  # longest wait for Ctrl-C or a cancel, unless one forward takes longer

Prompt = str | Sequence[Message]


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Prompts that are decoded together: a short batch is filled up with copies of its first."""

    indices: list[int]
    rows: list[list[int]]  # [B], token ids
    keys: jax.Array | None  # [B]


@dataclasses.dataclass(frozen=True)
class _Round:
    """A state between two rounds of forwards, as NumPy copies: the next `advance` takes the state's own memory."""

    canvases: list[Canvas]  # [B]
    forwards: np.ndarray  # [B] int
    refine_forwards: np.ndarray  # [B] int
    reasons: np.ndarray  # [B] int, a StopReason
    trace: Trace | None  # [B, S], once no row runs
    seconds: float
    compile_seconds: float

    @property
    def running(self) -> bool:
        return any(canvas.running for canvas in self.canvases)


class Generator:
    """Answers prompts with one model and one decoder, which compile once per bucket of prompt lengths.

    A bucket is a power of two of tokens. A prompt's answer is that of its batch of one, whatever stands beside it.

        generator = Generator(load("lrd-tiny-soft"), DecodeConfig.lrd(64))
        (answer,) = generator.generate(["Tom has 14 apples. Ann takes 5 apples. How many are left?"])

    Attributes:
      loaded: the model, its parameters and tokenizer.
      config: of the decoder.
      batch: rows that are decoded together.
      decoder: what runs.
    """

    def __init__(self, loaded: Loaded, config: DecodeConfig, *, batch: int = 1):
        """
        Raises:
          ValueError: a model without a tokenizer, no room for the canvas beside a prompt, or a batch below 1.
        """
        if loaded.tokenizer is None:
            raise Refused("the model has no tokenizer; copy tokenizer.json into its folder from the model's release")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise Refused(f"batch={batch!r} must be an integer of at least 1")
        self.loaded, self.config, self.batch = loaded, config, batch
        self.decoder = make_decode(loaded.model, config)
        self._tokenizer = loaded.tokenizer

    @property
    def room(self) -> int:
        """Tokens that the model's context leaves for a prompt."""
        return self.loaded.config.max_length - self.config.gen_length

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int | None = None,
        keys: Sequence[jax.Array] | jax.Array | None = None,
        stop: Sequence[str] = (),
        chat: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Answer]:
        """Decodes all prompts.

        Args:
          prompts: any number of texts or conversations. A conversation is a list of messages, `{"role": ..., "content":
            ...}` with the roles system, user and assistant, and goes through the model's chat template.
          seed: of the draws at a temperature and of random orders; a prompt's depend on the seed and its place only.
          keys: one `jax.random.key` a prompt, instead of a seed.
          stop: an answer's text ends before the first of these.
          chat: put texts into the chat template too, as the user's turn.
          cancelled: asked between forwards, such as an event's `is_set`; once it says so, answers that have not ended
            are given as far as they are settled, with the stop reason "cancelled".

        Returns:
          The answers, in the prompts' order.

        Raises:
          ValueError: not a list; a prompt that is empty, too long, holds words that the model does not know, or is no
            conversation, naming it; no chat template; both seed and keys; or a decoder that draws, with neither.
        """
        stop = _check_stop(stop)
        answers: dict[int, Answer] = {}
        for batch in self._batches(prompts, seed, keys, chat):
            last, asked = None, cancelled()
            for last in () if asked else self._rounds(batch):
                if asked := last.running and cancelled():
                    break
            share = 1 / len(batch.indices)
            for row, index in enumerate(batch.indices):
                answers[index] = self._never_begun() if last is None else self._answer(last, row, stop, share)
        return [answers[index] for index in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int | None = None,
        keys: Sequence[jax.Array] | jax.Array | None = None,
        stop: Sequence[str] = (),
        chat: bool = False,
    ) -> Iterator[Update]:
        """The same decode, told after every forward; closing the iterator ends it.

        Arguments and errors are those of `generate`. A row's first update comes before its first forward, and its last
        one brings the answer. Rows of a batch take turns.
        """
        stop = _check_stop(stop)
        return self._updates(self._batches(prompts, seed, keys, chat), stop)

    def encode(self, prompt: Prompt, *, chat: bool = False, name: str = "the prompt") -> list[int]:
        """Token ids of one prompt, as `generate` takes it.

        Args:
          name: of the prompt, for messages.

        Raises:
          ValueError: see `generate`.
        """
        if isinstance(prompt, str):
            texts, messages = [prompt], [{"role": "user", "content": prompt}] if chat else None
        else:
            messages = check_messages(prompt, name)
            texts = [message["content"] for message in messages]
        if not texts[-1].strip():
            raise Refused(f"{name} is empty; at least one word was wanted")
        if words := [word for text in texts for word in unknown_words(self._tokenizer, text)]:
            raise UnknownWords(list(dict.fromkeys(words)), name)
        if messages is None:
            ids = encode_text(self._tokenizer, texts[0])
        else:
            ids = encode_chat(self._tokenizer, messages)
        if not ids:
            raise Refused(f"{name} is empty: the tokenizer makes no token of it")
        if len(ids) > self.room:
            raise Refused(
                f"{name} of {len(ids)} tokens + canvas of {self.config.gen_length} exceed the model's context of "
                f"{self.loaded.config.max_length}; shorten one of them by {len(ids) - self.room}"
            )
        return ids

    def _batches(self, prompts, seed, keys, chat) -> list[_Batch]:
        """Prompts of like lengths together, the longest first: what is left is overrated rather than underrated."""
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise Refused(f"prompts must be a list of texts or conversations, got a {type(prompts).__name__}")
        rows = [self.encode(prompt, chat=chat, name=f"prompt {i}") for i, prompt in enumerate(prompts)]
        row_keys = _row_keys(seed, keys, len(rows))
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        batches = []
        for start in range(0, len(rows), self.batch):
            indices = order[start : start + self.batch]
            places = filled(indices, self.batch)
            batch_keys = None if row_keys is None else row_keys[np.array(places)]
            batches.append(_Batch(indices, [rows[i] for i in places], batch_keys))
        return batches

    def _updates(self, batches: list[_Batch], stop: tuple[str, ...]) -> Iterator[Update]:
        for batch in batches:
            share, ended = 1 / len(batch.indices), set()
            texts = [SettledText(self._tokenizer, self.loaded.config.end_ids, stop) for _ in batch.indices]
            for seen in self._rounds(batch, every=1):
                for row, index in enumerate(batch.indices):
                    if row in ended:
                        continue
                    canvas, text = seen.canvases[row], texts[row]
                    if canvas.running:
                        yield Update(index=index, text=text.more(canvas.tokens, canvas.masked), canvas=canvas)
                    else:
                        ended.add(row)
                        answer = self._answer(seen, row, stop, share)
                        yield Update(index=index, text=text.rest(answer.text), canvas=canvas, answer=answer)

    def _start(self, batch: _Batch) -> DecodeState:
        """The state before the first forward; what a row brings beside its prompt goes in here."""
        prompt, mask = left_pad(batch.rows, self._tokenizer.pad_token_id)
        prompt, mask = pad_to_bucket(prompt, mask, self.room)
        return self.decoder.start(self.loaded.params, prompt, mask, batch.keys)

    def _rounds(self, batch: _Batch, every: int | None = None) -> Iterator[_Round]:
        """The state before the first forward, and after every round.

        Args:
          every: forwards a round; None: as many as keep Ctrl-C prompt.
        """
        params = self.loaded.params
        began = time.perf_counter()
        state = self._start(batch)
        compile_seconds = time.perf_counter() - began
        yield self._read(state, 0.0, compile_seconds)
        began = time.perf_counter()
        state = jax.block_until_ready(self.decoder.advance(params, state, 0))  # compiles, runs nothing
        compile_seconds += time.perf_counter() - began
        count, seconds, running = every or 1, 0.0, True
        while running:
            began = time.perf_counter()
            state = jax.block_until_ready(self.decoder.advance(params, state, count))
            took = time.perf_counter() - began
            seconds += took
            if every is None and 2 * took < _PATIENCE_SECONDS:
                count *= 2
            seen = self._read(state, seconds, compile_seconds)
            running = seen.running
            yield seen

    def _read(self, state: DecodeState, seconds: float, compile_seconds: float) -> _Round:
        """Everything that is read of a state, copied."""
        config = self.config
        result = self.decoder.result(state)
        tokens, masked = np.array(state.tokens), np.array(state.masked)
        running, committing = np.array(state.running), np.array(state.committing)
        steps, block, block_steps = np.array(state.forwards), np.array(state.block), np.array(state.block_forwards)
        guesses, likeliest = np.full(tokens.shape, -1), np.array(state.belief.token)
        for row in np.flatnonzero(block_steps > 0):  # before: the belief is of another block
            start = block[row] * config.window
            guesses[row, start : start + config.window] = likeliest[row]
        canvases = [
            Canvas(
                tokens=tokens[row],
                masked=masked[row],
                guesses=guesses[row],
                steps=int(steps[row]),
                refining=not committing[row],
                running=bool(running[row]),
            )
            for row in range(len(tokens))
        ]
        ended = not running.any()
        return _Round(
            canvases=canvases,
            trace=jax.tree.map(np.array, result.trace) if ended else None,
            forwards=np.array(result.forwards),
            refine_forwards=np.array(result.refine_forwards),
            reasons=np.array(result.stop_reason),
            seconds=seconds,
            compile_seconds=compile_seconds,
        )

    def _answer(self, seen: _Round, row: int, stop: tuple[str, ...], share: float) -> Answer:
        """The answer of a row that has ended, or that was left."""
        canvas = seen.canvases[row]
        tokens = canvas.tokens
        if canvas.running and canvas.masked.any():
            tokens = tokens[: canvas.masked.argmax()]
        (length,) = answer_lengths(tokens[None], self.loaded.config.end_ids)
        (text,) = decode_text(self._tokenizer, tokens[None], self.loaded.config)
        end, cut_at = first_stop(text, stop)
        kept = tokens[:length] if cut_at is None else tokens[: tokens_of(self._tokenizer, tokens[:length], end)]
        reason = "cancelled" if canvas.running else StopReason(seen.reasons[row]).name.lower().replace("_", "-")
        return Answer(
            text=text[:end],
            tokens=kept.tolist(),
            forwards=int(seen.forwards[row]),
            refine_forwards=int(seen.refine_forwards[row]),
            stop_reason=reason,
            stop=cut_at,
            finish="length" if cut_at is None and length == len(tokens) else "stop",
            seconds=share * seen.seconds,
            compile_seconds=share * seen.compile_seconds,
            canvas=canvas.tokens,
            trace=jax.tree.map(lambda leaf: leaf[row], seen.trace),
        )

    def _never_begun(self) -> Answer:
        """Of a prompt whose turn had not come when all was cancelled."""
        return Answer(
            text="",
            tokens=[],
            forwards=0,
            refine_forwards=0,
            stop_reason="cancelled",
            stop=None,
            finish="length",
            seconds=0.0,
            compile_seconds=0.0,
            canvas=np.full(self.config.gen_length, self.loaded.config.mask_id, np.int32),
        )


def _check_stop(stop: Any) -> tuple[str, ...]:
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise Refused(f"stop must be a list of texts of at least one character, got {stop!r}")
    return tuple(stop)


def _row_keys(seed: int | None, keys: Sequence[jax.Array] | jax.Array | None, count: int) -> jax.Array | None:
    """`[N]` keys of all prompts; None where none are wanted."""
    if keys is None:
        if seed is None:
            return None
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise Refused(f"seed={seed!r} must be an integer in [0, 2^63)")
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(count))
    if seed is not None:
        raise Refused("seed and keys were both given; a key a prompt takes the seed's place")
    if len(keys) != count:
        raise Refused(f"keys must hold one jax.random.key for each of {count} prompts, got {len(keys)}")
    return keys if isinstance(keys, jax.Array) else jnp.stack(list(keys))
