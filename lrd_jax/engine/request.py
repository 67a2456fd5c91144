"""What an engine is asked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.request import check_own_length
from lrd_jax.engine.numbers import changed_numbers
from lrd_jax.engine.plan import Work
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator, check_stop, checked_seed
from lrd_jax.text import Message, Piece, token_ids

_LONGEST = 10**9  # seconds: clocks and locks take no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt, and how its answer is wanted.

    Attributes:
      prompt: a text; a conversation, which goes through the chat template; or token ids.
      length: positions of its own canvas, which decodes as with that gen_length; None: the config's gen_length.
      seed: of its draws. The answer is `Generator(loaded, config).generate([prompt], seed=seed)`'s.
      numbers: of the config, by name as in `lrd_jax.presets.preset`, that are this request's own.
      stop: its text ends before the first of these.
      canvas: for infilling, see `Generator.generate`; it brings its own length.
      deadline: seconds from now; what is settled then is the answer, with the stop reason "deadline". None: no limit.
    """

    prompt: str | Sequence[Message] | Sequence[int]
    length: int | None = None
    seed: int = 0
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stop: Sequence[str] = ()
    canvas: Sequence[Piece] | None = None
    deadline: float | None = None


@dataclasses.dataclass(frozen=True)
class Checked:
    """A request that can be decoded."""

    work: Work
    stop: tuple[str, ...]
    deadline: float | None  # seconds


def checked(request: Any, generator: Generator, prompt_length: int, length: int) -> Checked:
    """The request, with its prompt as tokens.

    Args:
      generator: of the model, and of a config whose gen_length is the engine's canvas.
      prompt_length: tokens that a prompt may have.
      length: of a request that names none.

    Raises:
      Refused: naming what cannot be.
    """
    if not isinstance(request, Request):
        raise Refused(f"request must be an lrd_jax.engine.Request, got a {type(request).__name__}")
    asked: Any = request.prompt
    ids = token_ids(asked, generator.loaded.config.vocab_size)
    prompt = generator.encode(asked) if ids is None else ids
    if len(prompt) > prompt_length:
        raise Refused(
            f"the prompt has {len(prompt)} tokens, more than prompt_length={prompt_length} of the engine: "
            "shorten it, or start the engine with more"
        )
    given = None if request.canvas is None else generator.encode_canvas(request.canvas)
    if given is not None and request.length is not None:
        raise Refused(f"length={request.length} and a canvas were both given: the canvas brings its own length")
    length = _length(request.length, generator.config, length) if given is None else len(given)
    seed = checked_seed(request.seed)
    if request.deadline is not None and not _is_seconds(request.deadline):
        raise Refused(
            f"deadline={request.deadline!r:.80} must be a number of seconds above 0, at most {_LONGEST}, or None"
        )
    numbers = changed_numbers(generator.config, request.numbers, generator.loaded.config)
    return Checked(Work(prompt, length, given, seed, numbers), check_stop(request.stop), request.deadline)


def _length(asked: Any, config: DecodeConfig, default: int) -> int:
    if asked is None:
        return default
    if isinstance(asked, bool) or not isinstance(asked, int):
        raise Refused(f"length={asked!r} must be an integer: positions of the canvas")
    check_own_length(asked, config, "length")
    return asked


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST
