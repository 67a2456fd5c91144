"""Columns of prompts in, columns of answers out: for Ray Data, or whatever else maps batches over machines."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrd_jax.checkpoint import load
from lrd_jax.engine.engine import Engine
from lrd_jax.engine.feed import WINDOW, Feed, lanes
from lrd_jax.engine.request import Request, checked
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator, check_stop
from lrd_jax.presets import preset as decoder
from lrd_jax.text import parse_holes

Columns = Mapping[str, Sequence[Any]]

_ANSWER = ("text", "stop_reason", "finish", "forwards", "refine_forwards", "seconds")
_COUNTS = ("prompt_tokens", "completion_tokens")
_ERROR = "error"


class BatchDecoder:
    """Answers batches of prompts with one model and one decoder.

        import ray.data

        prompts = ray.data.read_json("prompts/")
        answers = prompts.map_batches(
            BatchDecoder,
            fn_constructor_kwargs={"model": "lrd-tiny-soft", "preset": "lrd", "gen_length": 64},
            batch_size=256,
            concurrency=2,
        )
        answers.write_json("answers/")

    It pickles as its arguments: the model is loaded where it is called, at the first call, and stays. An answer is that
    of its row alone, whatever the batch.
    """

    def __init__(
        self,
        model: str,
        preset: str = "lrd",
        *,
        gen_length: int = 64,
        changes: Mapping[str, Any] | None = None,
        dtype: str | None = None,
        slots: int = 16,
        chat: bool = False,
        stop: Sequence[str] = (),
        seed: int = 0,
    ):
        """
        Args:
          model: see `lrd_jax.load`.
          preset, gen_length, changes: see `lrd_jax.presets.preset`.
          slots: rows that decode together; batches are to be several times larger.
          chat: put texts into the model's chat template.
          stop: answers end before the first of these.
          seed: of the draws; those of a row depend on it and on the row's "id", or else its prompt.

        Raises:
          ValueError: what the preset refuses, or another wrong argument. A model that is not there is refused where it
            is loaded.
        """
        for name, value, least in (("slots", slots, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise Refused(f"{name}={value!r:.80} must be an integer of at least {least}")
        if not isinstance(chat, bool):
            raise Refused(f"chat={chat!r:.80} must be True or False")
        stop = check_stop(stop)
        self._config = decoder(preset, gen_length, model=model, **(changes or {}))
        self._asked: dict[str, Any] = {
            "model": model,
            "preset": preset,
            "gen_length": gen_length,
            "changes": dict(changes or {}),
        }
        self._asked |= {"dtype": dtype, "slots": slots, "chat": chat, "stop": stop, "seed": seed}
        self._opened: tuple[Generator, Feed] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _decoder, (self._asked,)

    def __call__(self, columns: Columns) -> dict[str, Any]:
        """
        Args:
          columns: "prompt", texts, or "messages", conversations; and "id", "length", "seed", "stop", "canvas" (a text
            with holes), where rows have their own. Others pass through.

        Returns:
          These columns, and for each row "text", "stop_reason", "finish", "forwards", "refine_forwards", "seconds",
          "prompt_tokens", "completion_tokens" (see `lrd_jax.Answer`) and "error": why there is no answer, else "".

        Raises:
          ValueError: columns that are none, of different lengths, without prompts, or named as what is returned.
        """
        count = _check(columns)
        generator, feed = self._open()
        requests: dict[int, Request] = {}
        lengths, errors = {}, {}
        for row in range(count):
            try:
                requests[row] = self._request({name: column[row] for name, column in columns.items()})
                asked = checked(requests[row], generator, generator.room, self._config.gen_length)
                lengths[row] = len(asked.work.prompt)
            except Refused as error:
                errors[row] = str(error)
        found: list[dict[str, Any]] = [{_ERROR: errors.get(row, "")} for row in range(count)]
        todo = lanes(lengths, generator.room, self._asked["slots"])
        for row, asked in feed.answered((length, [(row, requests[row]) for row in rows]) for length, rows in todo):
            answer = asked.result()
            found[row] |= {name: getattr(answer, name) for name in _ANSWER}
            found[row] |= dict(zip(_COUNTS, (asked.prompt_tokens, len(answer.tokens)), strict=True))
        nothing: dict[str, Any] = dict.fromkeys(("text", "stop_reason", "finish"), "")
        names = (*_ANSWER, *_COUNTS, _ERROR)
        return {**columns, **{name: np.array([row.get(name, nothing.get(name, 0)) for row in found]) for name in names}}

    def _open(self) -> tuple[Generator, Feed]:
        if self._opened is None:
            asked, config = self._asked, self._config
            loaded = load(asked["model"], dtype=asked["dtype"])

            def start(length: int, beside: Engine | None) -> Engine:
                slots = asked["slots"]
                return Engine(loaded, config, slots=slots, prompt_length=length, queue=WINDOW * slots, beside=beside)

            self._opened = Generator(loaded, config), Feed(start, asked["slots"], keep=True)
        return self._opened

    def _request(self, row: dict[str, Any]) -> Request:
        prompt = _plain(row.get("messages", row.get("prompt")))
        if isinstance(prompt, str) and self._asked["chat"]:
            prompt = [{"role": "user", "content": prompt}]
        length, seed, stop, canvas = (_plain(row.get(name)) for name in ("length", "seed", "stop", "canvas"))
        if seed is None:
            named = json.dumps([self._asked["seed"], _plain(row.get("id")), prompt], default=str).encode()
            seed = int.from_bytes(hashlib.sha256(named).digest()[:8]) >> 1
        stop = [stop] if isinstance(stop, str) else stop or []
        return Request(
            prompt=prompt,
            length=length,
            seed=seed,
            stop=[*stop, *self._asked["stop"]],
            canvas=None if canvas is None else parse_holes(canvas),
        )


def _decoder(asked: dict[str, Any]) -> BatchDecoder:
    return BatchDecoder(**asked)


def _plain(value: Any) -> Any:
    """A cell as Python has it; None where a column of numbers says so with NaN."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    return value


def _check(columns: Any) -> int:
    """The number of rows."""
    if not isinstance(columns, Mapping) or not columns or not all(hasattr(c, "__len__") for c in columns.values()):
        raise Refused(f"columns must be a table of lists or arrays by name, got {type(columns).__name__}")
    if ("prompt" in columns) == ("messages" in columns):
        raise Refused(f'columns must hold one of "prompt" and "messages", got {", ".join(map(str, columns))}')
    if clash := [name for name in (*_ANSWER, *_COUNTS, _ERROR) if name in columns]:
        raise Refused(f"columns named {', '.join(clash)} would be lost under the answers'; give them other names")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise Refused(f"columns must be of one length, got {lengths}")
    return next(iter(lengths.values()))
