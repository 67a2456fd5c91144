"""`Tuning`: the settings of a decoder that are measured for it, not designed, and nothing else of it."""

import dataclasses
import math
from typing import Any, cast

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.decoding.parts.stop import Stop

REDUCTIONS, SCOPES = ("mean", "sum", "max"), ("block", "masked")
NO_GUARD = "none"  # how a file writes the absence of a guard


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `lrd-jax calibrate` chooses, and a preset file holds, for a decoder with mixing, refinement and a stop.

    Attributes:
      r_f: of `Mix`.
      tau_refine: of `Refine`, nats.
      tau_decode: of `Stop`, nats; 0 never stops.
      max_entropy: guard of `Stop`, nats; inf: none.
      reduce, scope: of `Divergence`.
    """

    r_f: float
    tau_refine: float
    tau_decode: float
    max_entropy: float
    reduce: str
    scope: str

    @classmethod
    def of(cls, config: DecodeConfig) -> "Tuning":
        """A decoder's own.

        Raises:
          ValueError: the decoder lacks one of the parts that have these settings.
        """
        mix, refine, stop = _tuned_parts(config)
        guard = stop.max_entropy
        return cls(
            r_f=cast(float, mix.r_f),
            tau_refine=cast(float, refine.tau),
            tau_decode=cast(float, stop.tau),
            max_entropy=math.inf if guard is None else cast(float, guard),
            reduce=config.divergence.reduce,
            scope=config.divergence.scope,
        )

    def applied(self, config: DecodeConfig) -> DecodeConfig:
        """The decoder with these settings in place of its own.

        Raises:
          ValueError: a value out of range, or a decoder that lacks the parts, see `of`.
        """
        mix, refine, stop = _tuned_parts(config)
        guard = None if self.max_entropy == math.inf else self.max_entropy
        return config.replace(
            mix=dataclasses.replace(mix, r_f=self.r_f),
            refine=dataclasses.replace(refine, tau=self.tau_refine),
            stop=Stop(self.tau_decode, guard, stop.min_confidence),
            divergence=Divergence(self.reduce, self.scope),
        )

    def replace(self, **changes) -> "Tuning":
        return dataclasses.replace(self, **changes)

    @property
    def unstopped(self) -> "Tuning":
        """The same decode without early stops: no divergence is below 0."""
        return self.replace(tau_decode=0.0)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        fields = dataclasses.asdict(self)
        return {**fields, "max_entropy": NO_GUARD} if self.max_entropy == math.inf else fields

    @classmethod
    def from_json(cls, table: Any) -> "Tuning":
        """The inverse of `to_json`.

        Raises:
          ValueError: fields that are missing, unknown or of another type, all in one message.
        """
        if not isinstance(table, dict):
            raise ValueError(f"decoder must be a table, got {table!r}")
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        problems = [f"decoder.{name} is unknown; known: {', '.join(fields)}" for name in table if name not in fields]
        problems += [f"decoder.{name} is missing" for name in fields if name not in table]
        values = {name: table[name] for name in fields if name in table}
        if values.get("max_entropy") == NO_GUARD:
            values["max_entropy"] = math.inf
        for name, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if fields[name] is float and not is_number:
                also = f' or "{NO_GUARD}"' if name == "max_entropy" else ""
                problems.append(f"decoder.{name} must be a number{also}, got {value!r}")
            if fields[name] is str and not isinstance(value, str):
                problems.append(f"decoder.{name} must be a name, got {value!r}")
        if problems:
            raise ValueError("; ".join(problems))
        read: dict[str, Any] = {name: float(v) if fields[name] is float else v for name, v in values.items()}
        return cls(**read)


def _tuned_parts(config: DecodeConfig) -> tuple[Mix, Refine, Stop]:
    parts = {"mixing": config.mix, "refinement": config.refine, "stop": config.stop}
    if missing := [name for name, part in parts.items() if part is None]:
        raise ValueError(
            f"the decoder has no {' and no '.join(missing)} to tune; choose the preset lrd or paper, or a file"
        )
    return cast(tuple[Mix, Refine, Stop], tuple(parts.values()))
