"""Slots of no model: a row runs for as many forwards as its ticket says. And a clock that only forwards move."""

import dataclasses


@dataclasses.dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclasses.dataclass(eq=False)
class FakeTicket:
    """A request for `forwards` forwards; `told` is what the scheduler said of it."""

    name: str
    forwards: int
    deadline: float | None = None
    told: list = dataclasses.field(default_factory=list)
    every: int | None = None

    def begun(self, now):
        self.told.append(("begun", now))

    def seen(self, row, now):
        self.told.append(("seen", row.age))

    def ended(self, row, reason, now):
        self.told.append(("ended", row and row.age, reason))

    def failed(self, error):
        self.told.append(("failed", str(error)))

    @property
    def end(self):
        """How it ended: the row's age and the reason, once and last of all."""
        assert [event[0] for event in self.told].count("ended") == 1
        assert self.told[-1][0] == "ended"
        return self.told[-1][1:]


@dataclasses.dataclass
class FakeRow:
    age: int
    running: bool


class FakeRows:
    """Rows of `slots`, of which a forward takes `seconds`; `log` holds the names in the slots of every round."""

    def __init__(self, slots, clock, seconds=1.0):
        self.slots, self.clock, self.seconds = slots, clock, seconds
        self.at, self.age, self.log, self.asked = {}, {}, [], []

    def begin(self, placed, ended, n, keep):
        self.asked.append((n, keep))
        for slot in ended:
            del self.at[slot]
        for slot, ticket in placed.items():
            assert slot not in self.at, "the slot is taken"
            self.at[slot], self.age[slot] = ticket, 0
        self.log.append({slot: ticket.name for slot, ticket in self.at.items()})
        ran = 0
        while ran < n and len(self.at) > keep:
            ran += 1
            for slot in list(self.at):
                self.age[slot] += 1
                if self.age[slot] == self.at[slot].forwards:
                    del self.at[slot]
        self.clock.now += ran * self.seconds
        return ran

    def collect(self, ran):
        return ran, [FakeRow(self.age.get(slot, 0), slot in self.at) for slot in range(self.slots)]
