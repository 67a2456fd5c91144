"""Texts in, answers out: the only code that drives decodes of texts to their end.

Axes: B batch, P prompt, G canvas.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.answer import Answer, Canvas, Update, answer_of, never_begun
from lrd_jax.batching import filled
from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.request import check_stays
from lrd_jax.decoding.setting import check_rows
from lrd_jax.decoding.state import DecodeState, StopReason, Trace
from lrd_jax.decoding.text_form import to_table
from lrd_jax.errors import Refused
from lrd_jax.pods import agree, fetch, from_first
from lrd_jax.sharding import batch_parts, mesh_of, shard_batch
from lrd_jax.text import (
    Message,
    Piece,
    SettledText,
    UnknownWords,
    check_messages,
    check_text,
    encode_chat,
    encode_holes,
    encode_text,
    left_pad,
    pad_to_bucket,
    unknown_words,
)

_PATIENCE_SECONDS = 0.25  # longest wait for Ctrl-C or a cancel, unless one forward takes longer

_SHARED_ROUND = 16  # most forwards a round of several processes, whose clocks would choose different numbers

Prompt = str | Sequence[Message]


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Prompts that are decoded together: a short batch is filled up with copies of its first."""

    indices: list[int]
    rows: list[list[int]]  # [B], token ids
    canvases: list[np.ndarray | None] | None  # [B], tokens that are given [l], -1 where open; None: of no prompt at all
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


def _never() -> bool:
    return False


class Generator:
    """Answers prompts with one model and one decoder, which compile once per bucket of prompt lengths.

    A bucket is a power of two of tokens. A prompt's answer is that of its batch of one, whatever stands beside it.
    Where the parameters lie on a mesh over several processes, every process makes the same calls (see `lrd_jax.pods`).

        generator = Generator(load("lrd-tiny-soft"), DecodeConfig.lrd(64))
        (answer,) = generator.generate(["Tom has 14 apples. Ann takes 5 apples. How many are left?"])

    Attributes:
      loaded: the model, its parameters and tokenizer.
      config: of the decoder.
      batch: rows that are decoded together; on a mesh a multiple of the parts that it splits them into.
      decoder: what runs.
      tokenizer: the model's.
    """

    def __init__(self, loaded: Loaded, config: DecodeConfig, *, batch: int = 1):
        """
        Raises:
          ValueError: no loaded model, or one without a tokenizer; no room for the canvas beside a prompt; a batch below
            1; numbers one a row, of other rows than the batch's.
        """
        if not isinstance(loaded, Loaded):
            raise Refused(f"loaded must be what lrd_jax.load gives, got a {type(loaded).__name__}")
        if loaded.tokenizer is None:
            raise Refused("the model has no tokenizer; copy tokenizer.json into its folder from the model's release")
        if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
            raise Refused(f"batch={batch!r} must be an integer of at least 1")
        self._mesh = mesh_of(loaded.params)
        parts = 1 if self._mesh is None else batch_parts(self._mesh)
        batch = -(-int(batch) // parts) * parts
        self.loaded, self.config, self.batch = loaded, config, batch
        self.decoder = make_decode(loaded.model, config)
        check_rows(config, batch)
        self.tokenizer = loaded.tokenizer

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
        canvases: Sequence[Sequence[Piece] | None] | None = None,
        cancelled: Callable[[], bool] = _never,
    ) -> list[Answer]:
        """Decodes all prompts.

        Args:
          prompts: any number of texts or conversations. A conversation is a list of messages, `{"role": ..., "content":
            ...}` with the roles system, user and assistant, and goes through the model's chat template.
          seed: of the draws at a temperature and of random orders; a prompt's depend on the seed and its place only.
          keys: one `jax.random.key` a prompt, instead of a seed.
          stop: an answer's text ends before the first of these.
          chat: put texts into the chat template too, as the user's turn.
          canvases: for infilling, one a prompt, None where all of it is open: texts that are given and numbers of
            open positions between them, such as `["Answer: ", 3, " apples"]`. Such an answer is as long as its canvas.
          cancelled: asked between forwards, such as an event's `is_set`; once it says so, answers that have not ended
            are given as far as they are settled, with the stop reason "cancelled". Of several processes, process 0 is
            the one that is asked.

        Returns:
          The answers, in the prompts' order.

        Raises:
          ValueError: not a list; a prompt that is empty, too long, holds words that the model does not know, or is no
            conversation, naming it; no chat template; both seed and keys; a decoder that draws, with neither; or
            several processes that were asked for different things, naming what and which.
        """
        stop = check_stop(stop)
        if not callable(cancelled):
            raise Refused(f"cancelled must be a function, such as an event's is_set, got {cancelled!r:.80}")
        if cancelled is not _never and self._is_shared:
            cancelled = functools.partial(from_first, lambda asked=cancelled: bool(asked()))
        answers: dict[int, Answer] = {}
        for batch in self._batches(prompts, seed, keys, chat, canvases):
            last, asked = None, cancelled()
            for last in () if asked else self._rounds(batch):
                if asked := last.running and cancelled():
                    break
            share = 1 / len(batch.indices)
            for row, index in enumerate(batch.indices):
                answers[index] = self._never_begun() if last is None else self._answer(batch, last, row, stop, share)
        return [answers[index] for index in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int | None = None,
        keys: Sequence[jax.Array] | jax.Array | None = None,
        stop: Sequence[str] = (),
        chat: bool = False,
        canvases: Sequence[Sequence[Piece] | None] | None = None,
    ) -> Iterator[Update]:
        """The same decode, told after every forward; closing the iterator ends it.

        Arguments and errors are those of `generate`. A row's first update comes before its first forward, and its last
        one brings the answer. Rows of a batch take turns.
        """
        stop = check_stop(stop)
        return self._updates(self._batches(prompts, seed, keys, chat, canvases), stop)

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
        for text in texts:
            check_text(text, name)
        if not texts[-1].strip():
            raise Refused(f"{name} is empty; at least one word was wanted")
        if words := [word for text in texts for word in unknown_words(self.tokenizer, text)]:
            raise UnknownWords(list(dict.fromkeys(words)), name)
        if messages is None:
            ids = encode_text(self.tokenizer, texts[0])
        else:
            ids = encode_chat(self.tokenizer, messages)
        if not ids:
            raise Refused(f"{name} is empty: the tokenizer makes no token of it")
        if len(ids) > self.room:
            raise Refused(
                f"{name} of {len(ids)} tokens + canvas of {self.config.gen_length} exceed the model's context of "
                f"{self.loaded.config.max_length}; shorten one of them by {len(ids) - self.room}"
            )
        return ids

    def encode_canvas(self, pieces: Sequence[Piece], *, name: str = "the canvas") -> np.ndarray:
        """Given tokens int32 `[l]` of a canvas, -1 where it is open, as `generate` takes its pieces.

        Raises:
          ValueError: pieces that are none, no hole, words that the model does not know, or a length that does not fit.
        """
        check_stays(self.config)
        given = encode_holes(self.tokenizer, pieces, name)
        words = [word for piece in pieces if isinstance(piece, str) for word in unknown_words(self.tokenizer, piece)]
        if words:
            raise UnknownWords(list(dict.fromkeys(words)), name)
        if len(given) > self.config.gen_length:
            raise Refused(f"{name} has {len(given)} positions, more than gen_length={self.config.gen_length}")
        if len(given) % (self.config.block_length or 1):
            raise Refused(
                f"{name} has {len(given)} positions, no multiple of block_length={self.config.block_length}: "
                "open some more, or decode without blocks"
            )
        return given

    def _batches(self, prompts, seed, keys, chat, canvases) -> list[_Batch]:
        """Prompts of like lengths together, the longest first: what is left is overrated rather than underrated."""
        if not isinstance(chat, bool):
            raise Refused(f"chat={chat!r} must be True or False")
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise Refused(f"prompts must be a list of texts or conversations, got a {type(prompts).__name__}")
        rows = [self.encode(prompt, chat=chat, name=f"prompt {i}") for i, prompt in enumerate(prompts)]
        given = None if canvases is None else self._given(canvases, len(rows))
        row_keys = _row_keys(seed, keys, len(rows))
        if self._is_shared:
            self._agree(rows, given, row_keys)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        batches = []
        for start in range(0, len(rows), self.batch):
            indices = order[start : start + self.batch]
            places = filled(indices, self.batch)
            batch_keys = None if row_keys is None else row_keys[np.array(places)]
            batch_given = None if given is None else [given[i] for i in places]
            batches.append(_Batch(indices, [rows[i] for i in places], batch_given, batch_keys))
        return batches

    @property
    def _is_shared(self) -> bool:
        """Whether other processes hold a part of the model."""
        return self._mesh is not None and self._mesh.is_multi_process

    def _agree(self, rows: list[list[int]], given: list[np.ndarray | None] | None, keys: jax.Array | None) -> None:
        """Refuses, on every process, what the processes were not asked for alike."""
        facts: dict[str, Any] = {"decoder": to_table(self.config), "batch": self.batch}
        facts |= {f"prompt {i}": [self.tokenizer.decode(row), row] for i, row in enumerate(rows)}
        if given is not None:
            facts |= {f"canvas {i}": None if one is None else one.tolist() for i, one in enumerate(given)}
        if keys is not None:
            facts |= {f"key {i}": data.tolist() for i, data in enumerate(np.asarray(jax.random.key_data(keys)))}
        agree("requests", facts)

    def _given(self, canvases, count: int) -> list[np.ndarray | None]:
        if isinstance(canvases, str) or not isinstance(canvases, Sequence) or len(canvases) != count:
            raise Refused(f"canvases must be a list of one canvas, or None, for each of the {count} prompts")
        return [
            None if pieces is None else self.encode_canvas(pieces, name=f"canvas {i}")
            for i, pieces in enumerate(canvases)
        ]

    def _updates(self, batches: list[_Batch], stop: tuple[str, ...]) -> Iterator[Update]:
        for batch in batches:
            share, ended = 1 / len(batch.indices), set()
            texts = [SettledText(self.tokenizer, self._end_ids(batch, row), stop) for row in range(len(batch.indices))]
            for seen in self._rounds(batch, every=1):
                for row, index in enumerate(batch.indices):
                    if row in ended:
                        continue
                    canvas, text = seen.canvases[row], texts[row]
                    if canvas.running:
                        yield Update(index=index, text=text.more(canvas.tokens, canvas.masked), canvas=canvas)
                    else:
                        ended.add(row)
                        answer = self._answer(batch, seen, row, stop, share)
                        yield Update(index=index, text=text.rest(answer.text), canvas=canvas, answer=answer)

    def _start(self, batch: _Batch) -> DecodeState:
        """The state before the first forward; what a row brings beside its prompt goes in here."""
        prompt, mask = left_pad(batch.rows, self.tokenizer.pad_token_id)
        prompt, mask = pad_to_bucket(prompt, mask, self.room)
        if batch.canvases is None:
            return self.decoder.start(self.loaded.params, *self._placed(prompt, mask, batch.keys))
        G = self.config.gen_length
        lengths = np.array([G if given is None else len(given) for given in batch.canvases])
        canvas = np.full((len(prompt), G), -1, np.int32)
        for row, given in enumerate(batch.canvases):
            if given is not None:
                canvas[row, : len(given)] = given
        prompt, mask, keys, lengths, canvas = self._placed(prompt, mask, batch.keys, lengths, canvas)
        return self.decoder.start(self.loaded.params, prompt, mask, keys, length=lengths, canvas=canvas)

    def _placed(self, *rows: Any) -> tuple:
        """Arrays `[B, ...]` where the parameters are: on a mesh their rows are split."""
        return rows if self._mesh is None else shard_batch(rows, self._mesh)

    def _end_ids(self, batch: _Batch, row: int) -> tuple[int, ...]:
        """What ends a row's text; nothing ends one whose canvas was given, as its last words are."""
        filled_in = batch.canvases is not None and batch.canvases[row] is not None
        return () if filled_in else self.loaded.config.end_ids

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
            if every is None and (count < _SHARED_ROUND if self._is_shared else 2 * took < _PATIENCE_SECONDS):
                count *= 2
            seen = self._read(state, seconds, compile_seconds)
            running = seen.running
            yield seen

    def _read(self, state: DecodeState, seconds: float, compile_seconds: float) -> _Round:
        """Everything that is read of a state, copied."""
        config = self.config
        result = self.decoder.result(state)
        wanted = (state.masked, state.committing, state.block, state.block_forwards, state.forwards, state.belief.token)
        wanted = (result.replace(trace=None), *wanted)
        seen, masked, committing, block, block_steps, steps, likeliest = jax.tree.map(np.array, fetch(wanted))
        tokens, running = seen.tokens, seen.stop_reason == StopReason.RUNNING
        guesses = np.full(tokens.shape, -1)
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
            trace=jax.tree.map(np.array, fetch(result.trace)) if ended else None,
            forwards=seen.forwards,
            refine_forwards=seen.refine_forwards,
            reasons=seen.stop_reason,
            seconds=seconds,
            compile_seconds=compile_seconds,
        )

    def _answer(self, batch: _Batch, seen: _Round, row: int, stop: tuple[str, ...], share: float) -> Answer:
        """The answer of a row that has ended, or that was left."""
        canvas = seen.canvases[row]
        return answer_of(
            self.tokenizer,
            canvas,
            end_ids=self._end_ids(batch, row),
            given=None if batch.canvases is None else batch.canvases[row],
            stop=stop,
            stop_reason="cancelled" if canvas.running else StopReason(seen.reasons[row]).text,
            forwards=int(seen.forwards[row]),
            refine_forwards=int(seen.refine_forwards[row]),
            seconds=share * seen.seconds,
            compile_seconds=share * seen.compile_seconds,
            trace=jax.tree.map(lambda leaf: leaf[row], seen.trace),
        )

    def _never_begun(self) -> Answer:
        return never_begun(np.full(self.config.gen_length, self.loaded.config.mask_id, np.int32))


def check_stop(stop: Any) -> tuple[str, ...]:
    """The stop strings; raises ValueError for anything but a list of texts."""
    if isinstance(stop, str) or not isinstance(stop, Sequence) or not all(isinstance(one, str) and one for one in stop):
        raise Refused(f"stop must be a list of texts of at least one character, got {stop!r}")
    return tuple(stop)


def checked_seed(seed: Any) -> int:
    """The seed as a Python integer; raises Refused for what is none in [0, 2^63)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**63:
        raise Refused(f"seed={seed!r} must be an integer in [0, 2^63)")
    return int(seed)


def _row_keys(seed: int | None, keys: Sequence[jax.Array] | jax.Array | None, count: int) -> jax.Array | None:
    """`[N]` keys of all prompts; None where none are wanted."""
    if keys is None:
        if seed is None:
            return None
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(checked_seed(seed)), jnp.arange(count))
    if seed is not None:
        raise Refused("seed and keys were both given; a key a prompt takes the seed's place")
    is_array = isinstance(keys, jax.Array)
    each = keys if is_array and keys.ndim == 1 else () if is_array or not isinstance(keys, Sequence) else keys
    if len(each) != count or not all(_is_key(key) for key in ((keys[0],) if is_array and count else each)):
        got = len(each) if len(each) != count and isinstance(keys, Sequence) else f"{keys!r:.200}"
        got = len(each) if len(each) != count and isinstance(keys, Sequence) else f"{keys!r:.200}"
        raise Refused(f"keys must hold one jax.random.key for each of {count} prompts, got {got}")
    return keys if is_array else jnp.stack(list(keys)) if count else None


def _is_key(key: Any) -> bool:
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
