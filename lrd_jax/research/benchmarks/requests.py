"""Samples to answer, in batches that do not depend on what is answered already, and the loop that answers them."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lrd_jax.errors import Refused
from lrd_jax.research.benchmarks.records import Record, RecordFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One sample.

    Attributes:
      task, index, repeat: see `Record`.
      prompt: the text, in its chat template where there is one.
      until: the answer ends before the first of these.
      problem: the row of the data set.
    """

    task: str
    index: int
    repeat: int
    prompt: str
    until: tuple[str, ...]
    problem: dict[str, Any]

    @property
    def key(self):
        return self.task, self.index, self.repeat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """What was generated; the fields are those of `Record`."""

    output: str
    forwards: int
    refine_forwards: int
    stop_reason: str
    effective_tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Grade:
    """Whether an answer is right, and what was compared or how its code ended."""

    correct: bool | None
    verdict: str


class Answerer(Protocol):
    """Whoever turns prompts into answers."""

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Which requests are answered together, as indices."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """One batch of the plan."""
        ...


Report = Callable[[list[Record]], None]


def answer_all(
    requests: Sequence[Request],
    answerer: Answerer,
    file: RecordFile,
    *,
    grade: Callable[[Request, str], Grade],
    report: Report = lambda records: None,
) -> list[Record]:
    """Answers what the file does not hold yet.

    Batches are made of all requests, and one that is partly answered is decoded whole, so that an interrupted run
    computes what an unbroken one does.

    Args:
      report: called with the records that were there, then with each batch's.

    Returns:
      The record of each request, in their order.

    Raises:
      ValueError: a record of another prompt.
    """
    for request in requests:
        held = file.held.get(request.key)
        if held is not None and held.prompt != request.prompt:
            raise Refused(
                f"{file.path} answers another prompt for {request.task} {request.index}: it begins "
                f"{held.prompt[:80]!r}, asked was {request.prompt[:80]!r}; choose another folder"
            )
    if there := [file.held[r.key] for r in requests if r.key in file.held]:
        report(there)
    for batch in answerer.plan(requests):
        members = [requests[i] for i in batch]
        if all(request.key in file.held for request in members):
            continue
        fresh = [
            _record(request, answer, grade(request, answer.output))
            for request, answer in zip(members, answerer.answer(members), strict=True)
            if request.key not in file.held
        ]
        file.append(fresh)
        report(fresh)
    return [file.held[request.key] for request in requests]


def numbered(samples: Sequence[tuple[str, int, str, Sequence[str], dict[str, Any]]]) -> list[Request]:
    """Requests of (task, index, prompt, until, problem), the repetitions of one problem numbered."""
    seen: collections.Counter = collections.Counter()
    requests = []
    for task, index, prompt, until, problem in samples:
        repeat = seen[task, index]
        seen[task, index] += 1
        requests.append(
            Request(task=task, index=index, repeat=repeat, prompt=prompt, until=tuple(until), problem=problem)
        )
    return requests


def cut_at_stop(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string; empty ones do not count."""
    places = [place for stop in until if stop and (place := text.find(stop)) >= 0]
    return text[: min(places, default=len(text))]


def _record(request: Request, answer: Reply, grade: Grade) -> Record:
    asked = {name: getattr(request, name) for name in ("task", "index", "repeat", "prompt")}
    return Record(**asked, **dataclasses.asdict(answer), **dataclasses.asdict(grade))
