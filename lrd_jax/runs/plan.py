"""What a run asks of its engines: a request a line, and lines of like prompts one after another."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lrd_jax.engine.feed import lanes
from lrd_jax.engine.request import Request, checked
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator
from lrd_jax.runs.lines import BadLine, Line
from lrd_jax.text import parse_holes

if TYPE_CHECKING:
    from lrd_jax.runs.options import Run


@dataclasses.dataclass
class Plan:
    """What is to be done.

    Attributes:
      lanes: (tokens that a prompt may have, the numbers of lines), those of the longest prompts first.
      refused: lines that cannot be answered, and why.
    """

    lanes: list[tuple[int, list[int]]]
    refused: dict[int, BadLine]


def request_of(line: Line, options: "Run") -> Request:
    """
    Raises:
      Refused: a canvas that cannot be read.
    """
    seed = line.seed
    if seed is None:
        (drawn,) = np.random.SeedSequence([options.seed, line.number]).generate_state(1, np.uint64)
        seed = int(drawn >> np.uint64(1))
    return Request(
        prompt=_prompt(line, options),
        length=line.length,
        seed=seed,
        numbers=line.numbers,
        stop=(*line.stop, *options.stop_text),
        canvas=None if line.canvas is None else parse_holes(line.canvas),
    )


def plan(lines: Iterable[tuple[int, Line | BadLine]], options: "Run", generator: Generator) -> Plan:
    """Looks at every line, so that whatever an engine refuses later is no line's fault.

    Args:
      generator: of the model and the decoder.
    """
    lengths: dict[int, int] = {}
    refused: dict[int, BadLine] = {}
    for number, line in lines:
        try:
            if isinstance(line, BadLine):
                raise line
            asked = checked(request_of(line, options), generator, generator.room, generator.config.gen_length)
            lengths[number] = len(asked.work.prompt)
        except BadLine as error:
            refused[number] = error
        except Refused as error:
            refused[number] = BadLine(str(error), line.id, is_batch=line.url is not None)
    return Plan(lanes(lengths, generator.room, options.slots), refused)


def _prompt(line: Line, options: "Run"):
    """The prompt, or the conversation that a system prompt or the chat template makes of it."""
    messages = line.prompt
    if isinstance(messages, str):
        if not options.chat and options.system is None:
            return messages
        messages = [{"role": "user", "content": messages}]
    return messages if options.system is None else [{"role": "system", "content": options.system}, *messages]
