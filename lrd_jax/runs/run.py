"""A batch run from its file of prompts to its file of answers."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.engine import Engine, Request
from lrd_jax.engine.feed import WINDOW, Feed
from lrd_jax.generate import Generator
from lrd_jax.runs.fingerprint import made_of
from lrd_jax.runs.lines import Line, PromptFile
from lrd_jax.runs.options import Run
from lrd_jax.runs.plan import Plan, plan, request_of
from lrd_jax.runs.records import answer_record, refused_record
from lrd_jax.runs.shards import Shard
from lrd_jax.runs.store import Store

Report = Callable[[bool], None]  # told of an answer, whether it is a good one
Watch = Callable[[str, int, int], AbstractContextManager[Report]]  # of a name, the answers that are there, and of all


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run stands once a shard of it has been answered.

    Attributes:
      lines: of the shard.
      wrong: lines that have no answer: of the shard, or of all once they are merged.
      done: lines that any shard has answered, of `total`.
      merged: all answers are in one file.
    """

    lines: int
    wrong: int
    done: int
    total: int
    merged: bool


def run(
    options: Run,
    config: DecodeConfig,
    shard: Shard,
    *,
    open_model: Callable[[Callable[[Loaded], None]], Loaded],
    watch: Watch,
) -> Outcome:
    """Answers what a shard has not answered yet, and merges all answers once no shard lacks one.

    Args:
      open_model: loads the model; what it is given refuses one without its weights.
      watch: how far it is.

    Raises:
      ValueError: no such file or model; a folder of another run, or held by another process; a full disk.
    """
    file = PromptFile(options.input)
    store = Store(options.out, shard, made_of(options, config, file.sha256)).look()
    mine = [number for place, number in enumerate(file.numbers) if shard.has(place)]
    if any(number not in store.done for number in mine):
        loaded = open_model(lambda empty: _check(empty, config, options))
        with store.open():
            left = [number for number in mine if number not in store.done]
            with watch(f"shard {shard}" if shard.count > 1 else "answers", len(mine) - len(left), len(mine)) as report:
                _answer(options, loaded, config, file, left, store, report)
    merged = store.merge(file.numbers)
    wrong = sum(not store.done[number] for number in (file.numbers if merged else mine))
    return Outcome(len(mine), wrong, len(store.done), len(file.numbers), merged)


def _check(empty: Loaded, config: DecodeConfig, options: Run) -> None:
    """Refuses a decoder without room beside it, and a chat without a template, before any weight is read."""
    generator = Generator(empty, config)
    if options.chat or options.system is not None:
        asked = [] if options.system is None else [{"role": "system", "content": options.system}]
        generator.encode([*asked, {"role": "user", "content": "?"}], name="the system prompt")


def _answer(
    options: Run,
    loaded: Loaded,
    config: DecodeConfig,
    file: PromptFile,
    numbers: list[int],
    store: Store,
    report: Report,
) -> None:
    todo = plan(file.read(numbers), options, Generator(loaded, config))
    for number, error in todo.refused.items():
        store.add(refused_record(number, error))
        report(False)

    def start(length: int, beside: Engine | None) -> Engine:
        queue = WINDOW * options.slots
        return Engine(loaded, config, slots=options.slots, prompt_length=length, queue=queue, beside=beside)

    with Feed(start, options.slots) as feed:
        for line, asked in feed.answered(_requests(todo, file, options)):
            answer = asked.result()
            store.add(answer_record(line, answer, asked.prompt_tokens, options.model))
            report(answer.complete)


def _requests(todo: Plan, file: PromptFile, options: Run) -> Iterator[tuple[int, Iterator[tuple[Line, Request]]]]:
    for length, numbers in todo.lanes:
        lines = (line for _, line in file.read(numbers))
        yield length, ((line, request_of(line, options)) for line in lines if isinstance(line, Line))
