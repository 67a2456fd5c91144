"""The text of an optimised HLO program, read for what one run of a part of it takes.

The TPU compiler writes an estimate of cycles at every instruction but collectives. A computation takes the sum over its
instructions: bodies of loops times their trips, the dearest branch of a conditional.
"""

import collections
import dataclasses
import functools
import math
import re

SCOPES = ("forward", "attention", "head", "belief", "divergence", "proposal", "mixing", "commit")  # jax.named_scope
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "send")

_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16}
_BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64}

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BOUND = re.compile(r"^s(?:32|64)\[\]\S* constant\((\d+)\)")
_PATH = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind and size of group.

    Attributes:
      kind: one of `COLLECTIVES`; "send" is what goes between slices.
      group: devices that take part in each.
    """

    kind: str
    group: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run takes on one device.

    Attributes:
      cycles: by scope.
      moved: bytes of the collectives' results.
      counts: of collectives.
      largest: bytes of the largest single result.
    """

    cycles: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    moved: collections.Counter[Traffic] = dataclasses.field(default_factory=collections.Counter)
    counts: collections.Counter[Traffic] = dataclasses.field(default_factory=collections.Counter)
    largest: collections.Counter[Traffic] = dataclasses.field(default_factory=collections.Counter)

    def __add__(self, other: "Cost") -> "Cost":
        sums = (self.cycles + other.cycles, self.moved + other.moved, self.counts + other.counts)
        return Cost(*sums, self.largest | other.largest)

    def times(self, n: int) -> "Cost":
        def scaled(counter):
            return collections.Counter({key: value * n for key, value in counter.items()})

        return Cost(scaled(self.cycles), scaled(self.moved), scaled(self.counts), self.largest if n else scaled({}))

    @property
    def weight(self) -> tuple[int, int]:
        """By which one run is dearer than another: cycles, then bytes moved."""
        return self.cycles.total(), self.moved.total()


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
      shape: of its result, as text.
      opcode: such as fusion or while.
      rest: operands and attributes.
      path: the scopes and operations that it came from.
    """

    name: str
    shape: str
    opcode: str
    rest: str

    @functools.cached_property
    def path(self) -> list[str]:
        found = _PATH.search(self.rest)
        return found[1].split("/") if found else []

    @property
    def scope(self) -> str:
        """The innermost of `SCOPES` that it stands in."""
        return next((part for part in reversed(self.path) if part in SCOPES), "other")

    def called(self, role: str) -> str | None:
        """The computation that it calls as its body, condition and so on."""
        found = re.search(rf"\b{role}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None

    @property
    def branches(self) -> list[str]:
        if found := re.search(r"branch_computations=\{([^}]*)\}", self.rest):
            return [name.strip().lstrip("%") for name in found[1].split(",")]
        return [name for role in ("true_computation", "false_computation") if (name := self.called(role))]


class Program:
    """An optimised HLO module, by computation."""

    def __init__(self, text: str):
        found = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
        self.partitions = int(found[1]) if found else 1
        self.computations: dict[str, list[Instruction]] = {}
        name, self.entry = None, ""
        for line in text.splitlines():
            if started := _COMPUTATION.match(line):
                name = started[2]
                self.computations[name] = []
                self.entry = name if started[1] else self.entry
            elif name is not None and (found := _INSTRUCTION.match(line)):
                self.computations[name].append(_instruction(found[1], found[2]))

    def cost(self, name: str, *, occasional: bool = True) -> Cost:
        """Of one run of a computation, with all that it calls.

        Args:
          occasional: whether what a forward does not always do is done: a loop without a number of trips runs once, and
            a forward's conditional takes its cheapest branch; else the loop does not run, and the branch is the
            dearest. (A cached decode refreshes in such a loop, and recomputes a region in such a branch.)
        """
        cost, channels = Cost(), set()
        for one in self.computations[name]:
            if one.opcode == "while":
                trips = self.trips(one)
                runs = int(occasional) if trips is None else trips
                inside = (self.cost(one.called(role) or "", occasional=occasional) for role in ("body", "condition"))
                cost += sum(inside, Cost()).times(runs)
            elif one.opcode == "conditional":
                costs = [self.cost(branch, occasional=occasional) for branch in one.branches]
                pick = min if occasional and one.scope == "forward" else max
                cost += pick(costs, key=lambda cost: cost.weight)
            elif one.opcode in ("call", "async-start"):
                cost += self.cost(one.called("to_apply") or one.called("calls") or "", occasional=occasional)
            else:
                found = _CYCLES.search(one.rest)
                cost += Cost(collections.Counter({one.scope: int(found[1])} if found else {}))
                cost += sum((self._traffic(x) for x in self._collectives(one) if _is_new(x, channels)), Cost())
        return cost

    def loop(self) -> Instruction:
        """The entry's costliest loop: one run of its body is a step of the decode."""
        loops = [one for one in self.computations[self.entry] if one.opcode == "while"]
        return max(loops, key=lambda one: self.cost(one.called("body") or "").weight)

    def step(self, *, occasional: bool = True) -> Cost:
        """Of one step of `loop`, and of asking whether there is another."""
        loop = self.loop()
        parts = (self.cost(loop.called(role) or "", occasional=occasional) for role in ("body", "condition"))
        return sum(parts, Cost())

    def trips(self, loop: Instruction) -> int | None:
        """How often a loop runs its body; None where its data says."""
        if known := _KNOWN_TRIPS.search(loop.rest):
            return int(known[1])
        condition = self.computations[loop.called("condition") or ""]
        root = condition[-1]
        for inner in (root, *self.computations.get(root.called("calls") or "", ())):
            if inner.opcode == "compare" and "direction=LT" in inner.rest:
                bounds = [
                    found[1] for one in condition if (found := _BOUND.match(f"{one.shape} {one.opcode}{one.rest}"))
                ]
                return max(map(int, bounds), default=None)
        return None

    def _collectives(self, one: Instruction) -> list[Instruction]:
        """The instruction if it is one, or those inside the fusion that it is."""
        if one.opcode == "fusion":
            inner = self.computations.get(one.called("calls") or "", [])
            return [found for line in inner for found in self._collectives(line)]
        return [one] if one.opcode.removesuffix("-start") in COLLECTIVES else []

    def _traffic(self, one: Instruction) -> Cost:
        kind = one.opcode.removesuffix("-start")
        sizes = array_bytes(one.shape)
        is_pair = kind == "send" or (one.opcode.endswith("-start") and kind != "all-reduce")  # operand and result
        nbytes = max(sizes, default=0) if is_pair else sum(sizes)
        counted = {Traffic(kind, self._group(kind, one.rest)): nbytes}
        return Cost(
            moved=collections.Counter(counted),
            counts=collections.Counter(dict.fromkeys(counted, 1)),
            largest=collections.Counter(counted),
        )

    def _group(self, kind: str, rest: str) -> int:
        """Devices that take part in a collective."""
        if kind in ("collective-permute", "send"):
            return 2
        if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):  # [groups,size]<=[...]
            return int(found[1])
        if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
            return found[1].count(",") + 1
        if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):  # mesh['a'=2,'b'=4] {'b'}
            sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
            return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
        return self.partitions


def array_bytes(shape: str) -> list[int]:
    """Bytes of every array of a shape, by its element type and sizes."""
    arrays = [(kind, dims) for kind, dims in _ARRAY.findall(shape) if kind in _BITS]
    return [math.prod(int(n) for n in dims.split(",") if n) * _BITS[kind] // 8 for kind, dims in arrays]


def _instruction(name: str, rest: str) -> Instruction:
    """Of the text behind the equals sign: a shape, or a tuple of them in parentheses, and opcode(operands)."""
    end, depth = 0, 0
    while depth or rest[end] != " ":
        depth += (rest[end] == "(") - (rest[end] == ")")
        end += 1
    shape, rest = rest[:end], rest[end + 1 :]
    opcode, _, operands = rest.partition("(")
    return Instruction(name, shape, opcode, f"({operands}")


def _is_new(one: Instruction, channels: set[str]) -> bool:
    """Whether a collective was not met before: its start, middle and end may be three fusions of one channel."""
    found = re.search(r"channel_id=(\d+)", one.rest)
    if not found or found[1] in channels:
        return not found
    channels.add(found[1])
    return True
