"""Estimated time of a step on a TPU slice, from the TPU compiler alone: the LRD step beside the plain one.

    pip install libtpu
    python benchmarks/tpu_cost.py --model llada-8b-instruct --tensor 8

The compiler writes an estimate of cycles at every instruction. They are summed over the body of the decode's loop, the
bodies of inner loops multiplied by their trip counts, the dearest branch of a conditional taken. Collectives carry no
estimate; what they move is printed apart. Listed too is every all-gather of more than a megabyte: there should be none.
"""

import collections
import dataclasses
import math
import re

import tyro
from tpu_memory import Plan, compile_decode

from lrd_jax.decoding.config import DecodeConfig

MEGAHERTZ = {"v5e": 940.0, "v5p": 1750.0, "v6e": 940.0}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
SCOPES = ("forward", "belief", "divergence", "proposal", "mixing", "commit")

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
TRIPS = re.compile(r"s32\[\][^=]*constant\((\d+)\)")
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a computation takes: cycles by scope, bytes by kind of collective, the large all-gathers."""

    cycles: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    moved: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    gathers: tuple[str, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.cycles + other.cycles, self.moved + other.moved, self.gathers + other.gathers)

    def times(self, n: int) -> "Cost":
        def scaled(counter):
            return collections.Counter({key: value * n for key, value in counter.items()})

        return Cost(scaled(self.cycles), scaled(self.moved), self.gathers)

    @property
    def total(self) -> int:
        return sum(self.cycles.values())


class Program:
    """The text of an optimised HLO module, by computation."""

    def __init__(self, text: str):
        self.lines: dict[str, list[str]] = {}
        name = None
        for line in text.splitlines():
            if started := COMPUTATION.match(line):
                name = started[1]
                self.lines[name] = []
                self.entry = name if line.startswith("ENTRY") else getattr(self, "entry", None)
            elif name is not None:
                self.lines[name].append(line)

    def cost(self, name: str) -> Cost:
        """Of one run of a computation, with all that it calls."""
        return sum((self._line(line) for line in self.lines[name]), Cost())

    def loop_body(self) -> str:
        """The body of the entry's costliest loop: one step of the decode."""
        bodies = [body for line in self.lines[self.entry] if (body := _called(line, "body"))]
        return max(bodies, key=lambda body: self.cost(body).total)

    def _line(self, line: str) -> Cost:
        if body := _called(line, "body"):
            condition = self.lines[_called(line, "condition")]
            trips = max((int(n) for inner in condition for n in TRIPS.findall(inner)), default=1)
            return self.cost(body).times(trips)
        if branches := re.search(r"branch_computations=\{([^}]*)\}", line):
            costs = [self.cost(branch.strip().lstrip("%")) for branch in branches[1].split(",")]
            return max(costs, key=lambda cost: cost.total)
        if " call(" in line:
            return self.cost(_called(line, "to_apply"))
        scope = next((scope for scope in SCOPES if f"/{scope}/" in line), "other")
        found = CYCLES.search(line)
        cost = Cost(collections.Counter({scope: int(found[1])} if found else {}))
        if collective := COLLECTIVE.search(line):
            size, kind = _nbytes(collective[1]), collective[2]
            large = kind == "all-gather" and size > 2**20
            cost += Cost(moved=collections.Counter({kind: size}), gathers=(line.strip()[:160],) if large else ())
        return cost


def _called(line: str, role: str) -> str | None:
    found = re.search(rf"\b{role}=%?([\w.\-]+)", line)
    return found[1] if found else None


def _nbytes(shapes: str) -> int:
    found = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes)
    return sum(BYTES[kind] * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in found if kind in BYTES)


def main(plan: Plan) -> None:
    clock = next((mhz for chip, mhz in MEGAHERTZ.items() if plan.topology.startswith(chip)), 1000.0)
    print(f"{plan}; milliseconds a step at {clock:.0f} MHz")
    totals = {}
    for name in ("plain", "paper"):
        config = getattr(DecodeConfig, name)(plan.gen_length, block_length=plan.block_length)
        program = Program(compile_decode(plan, config).as_text())
        cost = program.cost(program.loop_body())
        totals[name] = cost.total
        parts = ", ".join(f"{scope} {cycles / clock / 1e3:.2f}" for scope, cycles in cost.cycles.most_common())
        moved = ", ".join(f"{kind} {size / 2**20:.1f} MiB" for kind, size in cost.moved.items())
        print(f"{name:6} {cost.total / clock / 1e3:7.2f}: {parts}; {moved}")
        for gather in cost.gathers:
            print(f"       large all-gather: {gather}")
    print(f"LRD as the paper prints it / plain: {totals['paper'] / totals['plain']:.3f}")


if __name__ == "__main__":
    main(tyro.cli(Plan, description=__doc__))
