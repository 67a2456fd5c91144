"""Engines for what a server offers, and what a request becomes in them.

The same request is always the same rows: `max_tokens` is the canvas, and slots of the shortest canvas that holds it
decode it with its own length.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax

from lrd_jax.checkpoint import Loaded, embedded_models
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import difference, to_table
from lrd_jax.engine import Engine, Handle, Request
from lrd_jax.engine.handle import Listen
from lrd_jax.engine.pod import is_pod
from lrd_jax.engine.request import Checked
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator
from lrd_jax.labels import Scoring, scoring
from lrd_jax.presets import adjusted, decoder
from lrd_jax.serve.bodies import Body, Text, drawn, length_asked, pieces_of, stops_asked
from lrd_jax.serve.errors import Told
from lrd_jax.serve.options import Serve
from lrd_jax.tasks import examples
from lrd_jax.text import Message, Piece, UnknownWords

_USUAL_CANVASES = (64, 128, 256)
_USUAL_PROMPTS = (128, 1024)
_OWN = ("preset", "canvas", "labels", "stream", "numbers")  # of a body's "lrd"; others are numbers of the decoder
_CANVAS = "canvas"

T = TypeVar("T")
Prompt = str | Sequence[Message] | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Asked:
    """Rows of one request, ready for an engine each.

    Attributes:
      rows: each prompt's n answers, prompt after prompt.
      seed: that was given, or drawn.
      keep: positions of the canvas that the text is of; None: all.
      is_hole: they are a hole whose text ends with nothing but itself.
      snapshots: a stream shows the canvas.
    """

    rows: list[tuple[str, Checked]]  # name of the decoder
    seed: int
    keep: int | None
    is_hole: bool
    stops: tuple[str, ...]
    snapshots: bool


class Desk:
    """All engines of a server, by decoder, canvas and prompt length.

    Attributes:
      name: of the model, for clients.
      loaded: the model.
      configs: by the name of the decoder, with the longest canvas; the first is that of requests that name none.
      gen_length: positions of a request that names none.
      scorer: the one thread that scores labels.
      scoring: prompts that wait for their labels.
    """

    def __init__(self, options: Serve, loaded: Loaded, name: str):
        """Compiles every engine.

        Raises:
          Refused: what a preset or an engine refuses; lengths that the context has no room for.
        """
        self.name, self.loaded, self.gen_length, self.queue = name, loaded, options.gen_length, options.queue
        self.canvases, self.prompt_lengths = canvases, prompts = lengths(options, loaded.config.max_length)
        self.configs = {name: config_of(options, name, canvases[-1]) for name in (options.preset, *options.also)}
        self._generator = Generator(loaded, DecodeConfig.plain(canvases[-1]))  # for labels, which no decoder reads
        self.scorer, self.scoring = concurrent.futures.ThreadPoolExecutor(1, "labels"), 0
        self._engines: dict[tuple[str, int, int], Engine] = {}
        beside = None
        try:
            for decoder_name in self.configs:
                for canvas in canvases:
                    config = config_of(options, decoder_name, canvas)
                    for length in prompts:
                        beside = Engine(
                            loaded,
                            config,
                            slots=options.slots,
                            prompt_length=length,
                            queue=2 * options.queue + 2**12,
                            beside=beside,
                        )
                        self._engines[decoder_name, canvas, length] = beside
        except BaseException:
            self.close(drain=False)
            raise

    @property
    def has_template(self) -> bool:
        """Whether the model keeps conversations; without, it answers the last message alone."""
        return self._tokenizer.chat_template is not None

    @property
    def failure(self) -> BaseException | None:
        """What ended the engines; they share one thread."""
        return next(iter(self._engines.values())).failure

    @property
    def slots(self) -> int:
        return sum(engine.slots for engine in self._engines.values())

    @property
    def running(self) -> int:
        return sum(engine.counts.running for engine in self._engines.values())

    @property
    def waiting(self) -> int:
        return self.scoring + sum(engine.counts.waiting for engine in self._engines.values())

    @property
    def ended(self) -> collections.Counter:
        """Rows that have left their slots or queues, by reason."""
        return sum((engine.counts.ended for engine in self._engines.values()), collections.Counter())

    def call(self, function: Callable[[], T]) -> T:
        """As `Engine.call`."""
        return next(iter(self._engines.values())).call(function)

    @property
    def _tokenizer(self):
        assert self.loaded.tokenizer is not None, "engines have refused a model without"
        return self.loaded.tokenizer

    @property
    def _examples(self) -> list[str]:
        """Questions that the model knows, where it is one of the box."""
        return examples() if self.name in embedded_models() else []

    def describe(self) -> dict[str, Any]:
        """What a client may choose from."""
        decoders = {name: to_table(config) for name, config in self.configs.items()}
        return {
            "presets": list(decoders),
            "decoders": decoders,
            "max_tokens": self.gen_length,
            "canvases": self.canvases,
            "prompt_lengths": self.prompt_lengths,
            "context": self.loaded.config.max_length,
            "chat": "template" if self.has_template else "last message",
            "examples": self._examples,
        }

    def prompt_of(self, messages: Sequence[Message]) -> Prompt:
        """A conversation; of a model without a chat template its last message."""
        return messages if self.has_template else messages[-1]["content"]

    def check_count(self, body: Body, prompts: Sequence[Prompt]) -> None:
        """Raises Told, 400, for more answers than may wait: before any of them takes time."""
        count = len(prompts) * (body.n or 1)
        if count > self.queue:
            raise Told(400, f"the request has {count} answers, more than {self.queue} may wait")

    def require_room(self, count: int) -> None:
        """Raises Told, 429, where so many more answers than wait already may not; it takes them if none waits."""
        waiting = self.waiting
        if waiting and waiting + count > self.queue:
            raise Told(
                429,
                f"{waiting} answers wait for a slot, and no more than {self.queue} may: come again later",
                code="queue_full",
                headers={"Retry-After": "1"},
            )

    def check(self, body: Body, prompts: Sequence[Prompt]) -> Asked:
        """A request as rows.

        Raises:
          Told: 400, in one sentence, for what cannot be decoded.
        """
        try:
            return self._check(body, prompts)
        except UnknownWords as error:
            known = " ".join(f'"{one}"' for one in self._examples)
            hint = f"; it answers questions such as {known}" if known else ""
            raise Told(400, f"{error}{hint}", param="prompt", code="unknown_words") from None
        except Refused as error:
            raise Told(400, str(error)) from None

    def check_labels(self, body: Body, prompts: Sequence[Prompt]) -> list[Scoring]:
        """The labels that a request scores, one forward a prompt.

        Raises:
          Told: 400, for what cannot be scored.
        """
        own = body.lrd or {}
        if is_pod(self.loaded.params):
            raise Told(400, "lrd.labels are scored by a server of one process, and this is one of several", param="lrd")
        if unwanted := [name for name in own if name not in ("labels", _CANVAS)]:
            raise Told(400, f"lrd.{unwanted[0]} does not go with lrd.labels: nothing is decoded", param="lrd")
        if own.get(_CANVAS) is not None and length_asked(body) is not None:
            raise Told(400, "max_tokens and lrd.canvas were both given: the canvas brings its own length")
        if unread := drawn(body):
            raise Told(400, f"{unread} does not go with lrd.labels: nothing is decoded; leave it out", param=unread)
        try:
            pieces = None if own.get(_CANVAS) is None else list(pieces_of(own[_CANVAS]))
            length = self._length(body) if pieces is None else None
            asked = [scoring(self._generator, prompt, own["labels"], pieces, length, False) for prompt in prompts]
        except Refused as error:
            raise Told(400, str(error), param="lrd") from None
        if (longest := max(len(one.prompt) for one in asked)) > self.prompt_lengths[-1]:
            words = f"the prompt has {longest} tokens, more than prompt_length={self.prompt_lengths[-1]} of the server"
            raise Told(400, f"{words}: shorten it, or start the server with more")
        return asked

    def put(self, name: str, checked: Checked, listen: Listen, every: int | None) -> Handle:
        """Puts a row into the queue of the smallest slots that hold it.

        Raises:
          Refused: the engines are closed, or have failed.
        """
        return self._fitting(name, checked.work.length, len(checked.work.prompt)).put(
            checked, listen=listen, every=every
        )

    def close(self, drain: bool = True) -> None:
        """Of all engines: waits for what runs, or cancels it."""
        self.scorer.shutdown(wait=False, cancel_futures=True)
        for engine in self._engines.values():
            engine.stop(drain)
        for engine in self._engines.values():
            engine.close(drain)

    def _check(self, body: Body, prompts: Sequence[Prompt]) -> Asked:
        own = body.lrd or {}
        name = next(iter(self.configs)) if own.get("preset") is None else own["preset"]
        if not isinstance(name, str) or name not in self.configs:
            raise Refused(
                f"lrd.preset={name!r:.80} is not loaded; choose one of {', '.join(self.configs)}, or "
                "start the server with more of them, by --also"
            )
        config, numbers = self.configs[name], self._numbers(name, body)
        length, keep, canvas = self._canvas(body, config)
        if own.get("stream") not in (None, "text", "canvas"):
            raise Refused(f'lrd.stream={own["stream"]!r:.80} must be "text" or "canvas"')
        seed = secrets.randbelow(2**32) if body.seed is None else body.seed
        stops = stops_asked(body)
        is_hole = isinstance(body, Text) and bool(body.suffix)
        rows = []
        for prompt in prompts:
            for number in range(body.n or 1):
                request = Request(
                    prompt=prompt,
                    length=length,
                    seed=_seed_of(seed, number),
                    numbers=numbers,
                    stop=stops,
                    canvas=canvas,
                )
                rows.append((name, self._checked(name, request, rows[-1][1] if number else None)))
        return Asked(rows, seed, keep, is_hole, stops, own.get("stream") == _CANVAS)

    def _checked(self, name: str, request: Request, same: Checked | None) -> Checked:
        """A row; one that differs from another in its seed alone is not encoded again."""
        if same is not None:
            return dataclasses.replace(same, work=dataclasses.replace(same.work, seed=request.seed))
        return self._engines[name, self.canvases[-1], self.prompt_lengths[-1]].check(request)

    def _canvas(self, body: Body, config: DecodeConfig) -> tuple[int | None, int | None, list[Piece] | None]:
        """Positions of a row, how many of them are the text, and its canvas where some of it is given."""
        asked, own = length_asked(body), body.lrd or {}
        suffix = body.suffix if isinstance(body, Text) else None
        if own.get("canvas") is not None:
            if suffix:
                raise Refused("suffix and lrd.canvas were both given; put the suffix at the end of the canvas")
            pieces = list(pieces_of(own["canvas"]))
            if asked is not None:
                raise Refused("max_tokens and lrd.canvas were both given: the canvas brings its own length")
            return None, None, pieces
        asked = self._length(body)
        window = config.block_length or 1
        if suffix:
            given = len(self._tokenizer(suffix, add_special_tokens=False)["input_ids"])
            hole = asked + -(asked + given) % window
            return None, hole, [hole, suffix]
        length = asked + -asked % window
        return length, None if length == asked else asked, None

    def _length(self, body: Body) -> int:
        """Positions that a request asks for."""
        length = length_asked(body)
        length = self.gen_length if length is None else length
        if length > self.canvases[-1]:
            raise Told(
                400,
                f"max_tokens={length} is more than the longest canvas of this server, {self.canvases[-1]}: ask for "
                "less, or start it with a longer --canvas",
                param="max_tokens",
            )
        return length

    def _numbers(self, name: str, body: Body) -> dict[str, float]:
        """What a request changes in its decoder.

        Raises:
          Refused: what would make another one of it.
        """
        config, own = self.configs[name], body.lrd or {}
        given = own.get("numbers") or {}
        if not isinstance(given, Mapping):
            raise Refused(f'lrd.numbers must be numbers by name, such as {{"threshold": 0.9}}, got {given!r:.80}')
        changes = {**given, **{key: value for key, value in own.items() if key not in _OWN}}
        if body.temperature is not None:
            changes["temperature"] = body.temperature
        if body.top_p is not None and config.draw.top_p is not None:
            changes["top_p"] = body.top_p
        try:
            wanted = adjusted(config, changes) if changes else config
        except Refused as error:
            raise Told(400, f"lrd: {error}", param="lrd") from None
        if body.top_p not in (None, 1) and wanted.draw.top_p is None and wanted.draw.temperature != 0:
            raise Told(
                400,
                "top_p is not loaded: start the server with --top-p 1 to draw from a nucleus, or leave it out",
                param="top_p",
            )
        if jax.tree.structure(wanted) != jax.tree.structure(config):
            raise Refused(
                f"lrd: {', '.join(changes)} would make a decoder that is not loaded; a request may change numbers of "
                f"{', '.join(self.configs)}, and choose among them with lrd.preset"
            )
        return dict(_leaves(difference(wanted, config)))

    def _fitting(self, name: str, canvas: int, prompt: int) -> Engine:
        longest = next(length for length in self.canvases if canvas <= length)
        return self._engines[name, longest, next(length for length in self.prompt_lengths if prompt <= length)]


def lengths(options: Serve, context: int) -> tuple[list[int], list[int]]:
    """Those of canvases and of prompts that slots are kept for.

    Raises:
      Refused: the context has no room for them.
    """
    canvases = sorted({options.gen_length, *(options.canvas or [c for c in _USUAL_CANVASES if 2 * c <= context])})
    room = context - canvases[-1]
    if room < 1:
        raise Refused(f"a canvas of {canvases[-1]} leaves no room for a prompt in a context of {context}")
    prompts = sorted(set(options.prompt_length or [min(length, room) for length in _USUAL_PROMPTS]))
    if prompts[-1] > room:
        raise Refused(
            f"prompt_length={prompts[-1]} + canvas of {canvases[-1]} exceed the model's context of {context}: {room} "
            "is left for a prompt"
        )
    return canvases, prompts


def config_of(options: Serve, name: str, canvas: int) -> DecodeConfig:
    """A decoder for a canvas; what the command line changes, it changes in the first."""
    changes = options.changes if name == options.preset else {}
    return decoder(dataclasses.replace(options, preset=name, gen_length=canvas, changes=changes))


def _leaves(table: Mapping[str, Any], prefix: str = ""):
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _seed_of(seed: int, number: int) -> int:
    """The first answer has the request's own, so that it is the one of n=1."""
    if not number:
        return seed % 2**63
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8]) >> 1
