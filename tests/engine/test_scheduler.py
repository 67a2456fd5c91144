"""The scheduler over fake rows: order, slots, early returns, cancels, deadlines, the queue; and lanes by turns."""

import random
import threading

import pytest
from fake_rows import Clock, FakeRows, FakeTicket

from lrd_jax.engine.scheduler import PATIENCE_SECONDS, Scheduler
from lrd_jax.engine.turns import Turns
from lrd_jax.errors import Refused


def lane(slots=2, queue=1000, seconds=1.0, **options):
    clock = Clock()
    rows = FakeRows(slots, clock, seconds)
    return Scheduler(rows, slots, queue, clock=clock, **options), rows


def drive(scheduler, turns=10_000):
    """Turns until nothing is left."""
    for _ in range(turns):
        if not scheduler.busy:
            return
        if scheduler.begin():
            scheduler.collect()
        scheduler.tell()
    pytest.fail("the lane does not come to rest")


def submit(scheduler, *forwards):
    tickets = [FakeTicket(str(i), count) for i, count in enumerate(forwards)]
    for ticket in tickets:
        scheduler.submit(ticket)
    return tickets


def test_first_come_first_served_into_the_next_free_slot():
    scheduler, rows = lane(every=1)
    tickets = submit(scheduler, 3, 1, 1, 2)
    drive(scheduler)
    assert rows.log == [{0: "0", 1: "1"}, {0: "0", 1: "2"}, {0: "0", 1: "3"}, {1: "3"}]
    assert [ticket.end for ticket in tickets] == [(3, None), (1, None), (1, None), (2, None)]
    assert tickets[3].told == [("begun", 2.0), ("seen", 1), ("ended", 2, None)]


def test_a_round_ends_when_enough_slots_are_free_for_those_who_wait():
    scheduler, rows = lane(slots=4, seconds=PATIENCE_SECONDS / 100, refill=2)
    submit(scheduler, *[50, 60, 70, 80] * 3)
    drive(scheduler)
    keeps = [keep for _, keep in rows.asked]
    assert set(keeps) == {2, 0}  # two at a time, and all once nobody waits
    scheduler, rows = lane(slots=4, seconds=PATIENCE_SECONDS / 100, refill=2)
    submit(scheduler, *[50] * 5)
    drive(scheduler)
    assert rows.asked[0][1] == 3  # one waits: one slot is enough


def test_rounds_grow_to_what_patience_allows():
    scheduler, rows = lane(slots=1, seconds=PATIENCE_SECONDS / 10.5)
    submit(scheduler, 500)
    drive(scheduler)
    assert [n for n, _ in rows.asked][:6] == [1, 2, 4, 8, 10, 10]
    scheduler, rows = lane(slots=1, seconds=PATIENCE_SECONDS * 3)
    submit(scheduler, 5)
    drive(scheduler)
    assert {n for n, _ in rows.asked} == {1}


def test_a_request_may_ask_for_short_rounds_while_it_runs():
    scheduler, rows = lane(slots=2, seconds=PATIENCE_SECONDS / 100)
    submit(scheduler, 60)
    scheduler.submit(FakeTicket("looks", 5, every=2))
    drive(scheduler)
    assert [n for n, _ in rows.asked][:4] == [1, 2, 2, 8]


def test_a_cancelled_request_leaves_at_once_or_with_the_round():
    scheduler, rows = lane(slots=1, every=1)
    running, waiting, after = submit(scheduler, 5, 5, 1)
    assert scheduler.begin()
    assert scheduler.cancel(waiting)
    assert scheduler.cancel(running)
    scheduler.collect()
    drive(scheduler)
    assert running.end == (1, "cancelled")
    assert waiting.end == (None, "cancelled")
    assert after.end == (1, None)
    assert rows.log == [{0: "0"}, {0: "2"}]
    assert not scheduler.cancel(running)
    assert scheduler.counts.ended == {"cancelled": 2, "ended": 1}


def test_a_row_that_ended_before_its_cancel_was_seen_has_ended():
    scheduler, _ = lane(slots=1, every=1)
    (ticket,) = submit(scheduler, 1)
    scheduler.begin()
    assert scheduler.cancel(ticket)
    scheduler.collect()
    drive(scheduler)
    assert ticket.end == (1, None)


def test_deadlines_end_rows_and_those_who_wait():
    scheduler, _ = lane(slots=1, every=1)
    tickets = [
        FakeTicket("runs", 9, deadline=3),
        FakeTicket("waits", 1, deadline=2),
        FakeTicket("in time", 1, deadline=5),
    ]
    for ticket in tickets:
        scheduler.submit(ticket)
    drive(scheduler)
    assert [ticket.end for ticket in tickets] == [(3, "deadline"), (None, "deadline"), (1, None)]


def test_a_full_queue_refuses_and_says_what_is_there():
    scheduler, _ = lane(slots=1, queue=2, every=1)
    submit(scheduler, 5)
    scheduler.begin()
    submit(scheduler, 1, 1)
    with pytest.raises(Refused, match=r"queue is full: 1 requests run in 1 slots and 2 wait; come again later"):
        submit(scheduler, 1)
    scheduler.collect()
    drive(scheduler)
    submit(scheduler, 1)


def test_a_closed_lane_refuses_and_finishes():
    scheduler, _ = lane()
    (ticket,) = submit(scheduler, 3)
    scheduler.close()
    with pytest.raises(Refused, match="closed"):
        submit(scheduler, 1)
    drive(scheduler)
    assert ticket.end == (3, None)


def test_a_lane_that_fails_tells_everybody():
    scheduler, _ = lane(slots=1, every=1)
    tickets = submit(scheduler, 5, 5)
    scheduler.begin()
    scheduler.fail(OSError("gone"))
    assert [ticket.told[-1] for ticket in tickets] == [("failed", "gone")] * 2
    with pytest.raises(Refused, match="has failed: gone"):
        submit(scheduler, 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_slot_leaks_whatever_happens(seed):
    """Random arrivals, lengths, cancels and deadlines: everybody ends once, as it should, in the order of arrival."""
    rng = random.Random(seed)
    slots = rng.randint(1, 5)
    scheduler, rows = lane(slots=slots, every=rng.choice([None, 1, 3]), refill=rng.randint(1, slots), seconds=0.01)
    tickets, cancelled = [], set()
    while len(tickets) < 200 or scheduler.busy:
        for _ in range(rng.randint(0, 4) if len(tickets) < 200 else 0):
            deadline = rows.clock.now + rng.uniform(0, 1) if rng.random() < 0.1 else None
            tickets.append(FakeTicket(str(len(tickets)), rng.randint(1, 30), deadline))
            scheduler.submit(tickets[-1])
        begun = scheduler.begin()
        if tickets and rng.random() < 0.3:
            ticket = rng.choice(tickets)
            if scheduler.cancel(ticket):
                cancelled.add(ticket)
        if begun:
            scheduler.collect()
        scheduler.tell()
    starts = [ticket.told[0][1] for ticket in tickets if ticket.told[0][0] == "begun"]
    assert starts == sorted(starts)
    for ticket in tickets:
        age, reason = ticket.end
        assert reason in (None, "cancelled", "deadline")
        assert reason != "cancelled" or ticket in cancelled
        assert reason != "deadline" or ticket.deadline is not None
        assert reason is not None or age == ticket.forwards
        assert age is None or age <= ticket.forwards
    counts = scheduler.counts
    assert not rows.at
    assert (counts.running, counts.waiting, sum(counts.ended.values())) == (0, 0, len(tickets))
    assert counts.rows <= counts.forwards * slots


# Turns.


class Resting:
    """A lane that is busy for `turns` turns of some `seconds`; turns are logged."""

    def __init__(self, name, log, turns=0, seconds=1.0, fails=False):
        self.name, self.log, self.turns, self.seconds, self.fails = name, log, turns, seconds, fails
        self.error = None

    @property
    def busy(self):
        return self.turns > 0

    def begin(self):
        self.log.append(("begin", self.name))
        return True

    def collect(self):
        if self.fails:
            raise OSError("gone")
        self.turns -= 1
        return self.seconds

    def tell(self):
        self.log.append(("tell", self.name))

    def fail(self, error):
        self.error = error


def taken(log):
    return "".join(name for what, name in log if what == "begin")


def run(turns, *lanes):
    """Lets lanes begin at the same moment."""
    with turns.changed:
        for lane in lanes:
            turns.join(lane)
    turns.close()


def test_turns_divide_time_not_turns():
    turns, log = Turns(), []
    run(turns, Resting("a", log, 8, seconds=3.0), Resting("b", log, 24, seconds=1.0))
    assert taken(log)[:16].count("b") == 12


def test_what_a_turn_showed_is_told_while_the_next_one_runs():
    turns, log = Turns(), []
    run(turns, Resting("a", log, 1), Resting("b", log, 1))
    assert log == [("begin", "a"), ("begin", "b"), ("tell", "a"), ("tell", "b")]


def test_a_lane_that_rested_is_owed_nothing():
    turns, log = Turns(), []
    old, new = Resting("a", log, 100), Resting("b", log)
    with turns.changed:
        turns.join(old)
        turns.join(new)
    waking = threading.Event()
    collect = old.collect

    def collect_and_wake():
        if old.turns == 50:
            new.turns = 20
            waking.set()
        return collect()

    old.collect = collect_and_wake
    with turns.changed:
        turns.changed.notify_all()
    turns.close()
    assert waking.is_set()
    after = taken(log)[51:]
    assert after[:40].count("b") == 20
    assert "bbb" not in after


def test_an_error_ends_all_lanes_and_calls():
    turns, log = Turns(), []
    lanes = [Resting("a", log, 1, fails=True), Resting("b", log, 1)]
    run(turns, *lanes)
    assert [str(lane.error) for lane in lanes] == ["gone", "gone"]
    with pytest.raises(Refused, match="closed"):
        turns.call(lambda: None)


def test_calls_run_in_the_thread_and_bring_values_and_errors_back():
    turns = Turns()
    assert turns.call(threading.current_thread) is not threading.current_thread()
    with pytest.raises(OSError, match="no"):
        turns.call(lambda: (_ for _ in ()).throw(OSError("no")))
    assert turns.call(lambda: 5) == 5
    turns.close()
