"""How long a step may take, and how many tokens a second that gives. Nothing here was measured on a chip."""

import dataclasses
from collections.abc import Mapping

from lrd_jax.plan.chips import Chip
from lrd_jax.plan.hlo import Cost

LABELS = {"forward": "layers"}  # what a scope is called, where by another name than its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step of one kind.

    Attributes:
      compute: by part, from the compiler's cycles.
      collectives: from their bytes, as if nothing else ran beside them.
    """

    compute: Mapping[str, float]
    collectives: float

    @property
    def total(self) -> float:
        return sum(self.compute.values()) + self.collectives

    @property
    def dearest(self) -> tuple[str, float]:
        """The part that takes longest, and its share."""
        parts = {**self.compute, "collectives": self.collectives}
        name = max(parts, key=lambda name: parts[name])
        return name, parts[name] / self.total if self.total else 0.0


def step_time(cost: Cost, chip: Chip) -> StepTime:
    """Of what a step takes on a kind of chip."""
    compute = {LABELS.get(scope, scope): cycles / chip.hertz for scope, cycles in cost.cycles.most_common()}
    moved = (chip.collective_seconds(traffic.kind, nbytes, traffic.group) for traffic, nbytes in cost.moved.items())
    return StepTime(compute=compute, collectives=sum(moved))


def mean_seconds(steps: Mapping[str, StepTime], refreshes: float) -> float:
    """Of a step, where a share of them refreshes a cache."""
    if "refresh" not in steps:
        return steps["forward"].total
    return refreshes * steps["refresh"].total + (1 - refreshes) * steps["forward"].total
