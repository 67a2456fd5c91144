"""Lanes of like prompts, and the feed of engines, with engines that answer nothing and end when they are told."""

import pytest

from lrd_jax.engine.feed import WINDOW, Feed, lanes
from lrd_jax.errors import Refused


def test_lanes_are_of_like_prompts_the_longest_first():
    lengths = {"a": 3, "b": 100, "c": 17, "d": 90, "e": 16, "f": 30}
    assert lanes(lengths, 1000, 2) == [(128, ["b", "d"]), (32, ["c", "f"]), (16, ["a", "e"])]
    assert lanes(lengths, 1000, 3) == [(128, ["b", "d", "c", "f", "a", "e"])]
    assert lanes(lengths, 100, 1)[0] == (100, ["b", "d"])
    assert lanes({}, 100, 1) == []


class Job:
    prompt_tokens = 1

    def __init__(self, request):
        self.request, self.done, self.cancelled = request, False, False

    def result(self, timeout=None):
        if not self.done:
            raise TimeoutError
        return self.request

    def cancel(self):
        self.cancelled = True
        return True


class FakeEngine:
    """Ends the newest of its requests whenever somebody waits, but never the one called "slow" while others run."""

    def __init__(self, length, beside, log):
        self.length, self.beside, self.jobs, self.closed, self._log = length, beside, [], False, log

    def submit(self, request):
        assert not self.closed
        job = Job(request)
        job.result = lambda timeout=None: self._wait(job)
        self.jobs.append(job)
        self._log.append(len([job for job in self.jobs if not job.done]))
        return job

    def _wait(self, job):
        running = sorted((one for one in self.jobs if not one.done), key=lambda one: one.request == "slow")
        if running and not job.done:
            running[0].done = True
        if not job.done:
            raise TimeoutError
        return job.request

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


@pytest.fixture
def engines():
    return []


def feed_of(engines, log, slots=1, **settings):
    def start(length, beside):
        engines.append(FakeEngine(length, beside, log))
        return engines[-1]

    return Feed(start, slots, **settings)


def test_every_request_comes_back_once_and_a_slow_one_holds_up_nobody(engines):
    log = []
    requests = ["slow", *map(str, range(50))]
    with feed_of(engines, log) as feed:
        ended = [(key, asked.result()) for key, asked in feed.answered([(16, list(enumerate(requests)))])]
    assert sorted(ended) == list(enumerate(requests)) and ended[-1] == (0, "slow")
    assert max(log) == WINDOW and engines[0].closed


def test_the_next_lane_fills_while_the_last_rows_of_one_go_on(engines):
    todo = [(64, [(0, "slow"), (1, "a")]), (16, [(key, "b") for key in range(2, 40)])]
    with feed_of(engines, []) as feed:
        for key, _ in feed.answered(todo):
            last = key
            if key == 1:
                assert not engines[0].closed
    assert [engine.length for engine in engines] == [64, 16]
    assert engines[1].beside is engines[0] and all(engine.closed for engine in engines) and last != 1


def test_a_drained_engine_is_closed_before_the_end_unless_it_is_kept(engines):
    todo = [(64, [(0, "a")]), (16, [(key, "b") for key in range(1, 40)])]
    with feed_of(engines, []) as feed:
        assert any(engines[0].closed for _ in feed.answered(todo))
    engines.clear()
    with feed_of(engines, [], keep=True) as feed:
        for _ in range(2):
            assert len(list(feed.answered(todo))) == 40
        assert len(engines) == 2 and not any(engine.closed for engine in engines)
    assert all(engine.closed for engine in engines)


def test_who_leaves_takes_their_requests_along(engines):
    with feed_of(engines, [], keep=True) as feed:
        answers = feed.answered([(16, [(key, "a") for key in range(20)])])
        next(answers)
        answers.close()
        assert any(job.cancelled for job in engines[0].jobs)
        assert [key for key, _ in feed.answered([(16, [("new", "b")])])] == ["new"]


def test_what_an_engine_refuses_ends_the_feed(engines):
    with feed_of(engines, []) as feed, pytest.raises(Refused, match="failed"):

        def fails(request):
            raise Refused("failed")

        feed._engine(16).submit = fails
        list(feed.answered([(16, [(0, "a")])]))
