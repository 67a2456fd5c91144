"""A run over several processes: every process decodes the same batches, and process 0 keeps the answers."""

import json
from collections.abc import Iterator, Sequence

import jax

from lrd_jax.answer import Answer
from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.engine import Request
from lrd_jax.generate import Generator
from lrd_jax.presets import adjusted
from lrd_jax.runs.lines import Line

Asked = tuple[Line, Request]


def answered_together(
    loaded: Loaded, config: DecodeConfig, requests: Sequence[Asked], slots: int
) -> Iterator[tuple[Line, Answer, int]]:
    """Lines, their answers and the tokens of their prompts, batch by batch, in an order that is the same everywhere.

    What asks for a length, numbers or stops of its own is decoded with others that ask for the same.
    """
    groups: dict[str, list[Asked]] = {}
    for line, request in requests:
        groups.setdefault(json.dumps([request.length, request.numbers, request.stop]), []).append((line, request))
    for group in groups.values():
        _, first = group[0]
        own = config if first.length is None else config.replace(gen_length=first.length)
        generator = Generator(loaded, adjusted(own, first.numbers) if first.numbers else own, batch=slots)
        for start in range(0, len(group), generator.batch):
            yield from _batch(generator, group[start : start + generator.batch])


def _batch(generator: Generator, asked: Sequence[Asked]) -> Iterator[tuple[Line, Answer, int]]:
    requests = [request for _, request in asked]
    canvases = [request.canvas for request in requests]
    answers = generator.generate(
        [request.prompt for request in requests],
        keys=[jax.random.fold_in(jax.random.key(request.seed), 0) for request in requests],  # as of a prompt alone
        stop=requests[0].stop,
        canvases=canvases if any(canvases) else None,
    )
    for (line, request), answer in zip(asked, answers, strict=True):
        yield line, answer, len(generator.encode(request.prompt))
