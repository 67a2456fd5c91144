"""A batch run from its file of prompts to its file of answers."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.engine import Engine, Request
from lrd_jax.engine.feed import WINDOW, Asked, Feed
from lrd_jax.engine.pod import is_pod
from lrd_jax.generate import Generator
from lrd_jax.pods import agree, from_first, is_first
from lrd_jax.runs.fingerprint import made_of
from lrd_jax.runs.lines import Line, PromptFile
from lrd_jax.runs.options import Run
from lrd_jax.runs.plan import Plan, plan, request_of
from lrd_jax.runs.records import answer_record, refused_record
from lrd_jax.runs.shards import Shard
from lrd_jax.runs.store import Store

Report = Callable[[bool], None]  # told of an answer, whether it is a good one
Watch = Callable[[str, int, int], AbstractContextManager[Report]]  # of a name, the answers that are there, and of all
Open = Callable[[Callable[[Loaded], None]], Loaded]


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


def run(options: Run, config: DecodeConfig, shard: Shard, *, open_model: Open, watch: Watch) -> Outcome:
    """Answers what a shard has not answered yet, and merges all answers once no shard lacks one.

    Of several processes that are one program all call it, and process 0 alone reads and writes the folder.

    Args:
      open_model: loads the model; what it is given refuses one without its weights.
      watch: how far it is.

    Raises:
      ValueError: no such file or model; a folder of another run, or held by another process; a full disk.
    """
    file = PromptFile(options.input)
    agree("files of prompts", {"sha256": file.sha256})
    store = Store(options.out, shard, made_of(options, config, file.sha256))
    mine = [number for place, number in enumerate(file.numbers) if shard.has(place)]
    if from_first(lambda: store.look().left(mine)):
        loaded = open_model(lambda empty: _check(empty, config, options))
        with store.open() if is_first() else contextlib.nullcontext():
            left = from_first(lambda: store.left(mine))
            name = f"shard {shard}" if shard.count > 1 else "answers"
            with watch(name, len(mine) - len(left), len(mine)) as report:
                for record, is_good in _records(options, loaded, config, file, left):
                    if is_first():
                        store.add(record)
                        report(is_good)
    return Outcome(**from_first(lambda: _outcome(store, file, mine)))


def _outcome(store: Store, file: PromptFile, mine: list[int]) -> dict[str, Any]:
    merged = store.merge(file.numbers)
    wrong = sum(not store.done[number] for number in (file.numbers if merged else mine))
    outcome = Outcome(len(mine), wrong, len(store.done), len(file.numbers), merged)
    return dataclasses.asdict(outcome)


def _check(empty: Loaded, config: DecodeConfig, options: Run) -> None:
    """Refuses a decoder without room beside it, and a chat without a template, before any weight is read."""
    generator = Generator(empty, config)
    if options.chat or options.system is not None:
        asked = [] if options.system is None else [{"role": "system", "content": options.system}]
        generator.encode([*asked, {"role": "user", "content": "?"}], name="the system prompt")


def _records(
    options: Run, loaded: Loaded, config: DecodeConfig, file: PromptFile, numbers: list[int]
) -> Iterator[tuple[dict[str, Any], bool]]:
    """A record for each line, and whether it is a good answer."""
    todo = plan(file.read(numbers), options, Generator(loaded, config))
    for number, error in todo.refused.items():
        yield refused_record(number, error), False
    for line, asked in _answered(options, loaded, config, todo, file):
        answer = asked.result()
        yield answer_record(line, answer, asked.prompt_tokens, options.model), answer.complete


def _answered(
    options: Run, loaded: Loaded, config: DecodeConfig, todo: Plan, file: PromptFile
) -> Iterator[tuple[Line, Asked]]:
    """Lines as they are answered: on process 0, where the engines are asked.

    Prompts of like lengths have an engine after another's; over several processes all have one, which all must make.
    """
    lanes = [(length, _requests(numbers, file, options)) for length, numbers in todo.lanes]
    lengths, pod = [length for length, _ in lanes], is_pod(loaded.params)

    def start(length: int, beside: Engine | None = None) -> Engine:
        held, queue = lengths if pod else length, WINDOW * options.slots
        return Engine(loaded, config, slots=options.slots, prompt_length=held, queue=queue, beside=beside)

    if is_first():
        with Feed(start, options.slots) as feed:
            all_of_them = itertools.chain.from_iterable(requests for _, requests in lanes)
            yield from feed.answered([(max(lengths), all_of_them)] if pod and lanes else lanes)
    elif pod and lanes:
        start(max(lengths)).close()  # once process 0 has closed its own


def _requests(numbers: list[int], file: PromptFile, options: Run) -> Iterator[tuple[Line, Request]]:
    lines = (line for _, line in file.read(numbers))
    return ((line, request_of(line, options)) for line in lines if isinstance(line, Line))
