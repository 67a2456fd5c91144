"""`Tuning`: the settings of a decoder that are measured for it, not designed, and nothing else of it."""

import dataclasses
import math
from typing import Any

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.commit.settling import All
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.decoding.text_form import NONE, changed
from lrd_jax.errors import Refused

REDUCTIONS, SCOPES = ("mean", "sum", "max"), ("block", "masked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `lrd-jax calibrate` chooses for a decoder with mixing, refinement and a stop: six fields of the text form.

    A decoder that settles, and then commits all that is masked, has no stop: the end of its refinement is one.

    Attributes:
      r_f: of `Mix`.
      tau_refine: of `Refine`, nats.
      tau_decode: of `Stop`, nats; 0 never stops. None: the decoder settles.
      max_entropy: guard of `Stop`, nats; inf: none. None: the decoder settles.
      reduce, scope: of `Divergence`.
    """

    r_f: float
    tau_refine: float
    tau_decode: float | None
    max_entropy: float | None
    reduce: str
    scope: str

    @classmethod
    def of(cls, config: DecodeConfig) -> "Tuning":
        """A decoder's own.

        Raises:
          ValueError: the decoder lacks one of the parts that have these settings, or has one that hides them.
        """
        mix, refine, stop = config.mix, config.refine, config.stop
        wanted = {"mixing": isinstance(mix, Mix), "refinement": isinstance(refine, Refine)}
        settles = stop is None and isinstance(config.commit, All)
        wanted["stop"] = settles or isinstance(stop, Stop)
        if missing := [name for name, there in wanted.items() if not there]:
            raise Refused(
                f"the decoder has no {' and no '.join(missing)} to tune; "
                "choose the preset lrd, paper or settle, or a file"
            )
        if refine.min_confidence is not None:
            raise Refused(
                f"refine.min_confidence={refine.min_confidence} ends refinements that no tau ends, and no certificate "
                "would cover them; calibrate with --refine.min-confidence none"
            )
        guard = None if settles else math.inf if stop.max_entropy is None else stop.max_entropy
        return cls(
            r_f=mix.r_f,
            tau_refine=refine.tau,
            tau_decode=None if settles else stop.tau,
            max_entropy=guard,
            reduce=config.divergence.reduce,
            scope=config.divergence.scope,
        )

    @property
    def settles(self) -> bool:
        """Whether it is of a decoder that settles and then commits all."""
        return self.tau_decode is None

    @property
    def changes(self) -> dict[str, Any]:
        """The settings in the text form, as `lrd_jax.decoding.text_form.changed` takes them and a preset file holds."""
        stop = {} if self.settles else {"stop": {"tau": self.tau_decode, "max_entropy": self.guard}}
        return {
            "mix": {"r_f": self.r_f},
            "refine": {"tau": self.tau_refine},
            **stop,
            "divergence": {"reduce": self.reduce, "scope": self.scope},
        }

    @property
    def guard(self) -> float | str | None:
        """`max_entropy` as the text form has it."""
        return NONE if self.max_entropy == math.inf else self.max_entropy

    def applied(self, config: DecodeConfig) -> DecodeConfig:
        """The decoder with these settings in place of its own.

        Raises:
          ValueError: a value out of range, or a decoder that lacks the parts, see `of`.
        """
        Tuning.of(config)
        return changed(config, self.changes)

    def replace(self, **changes: Any) -> "Tuning":
        return dataclasses.replace(self, **changes)

    @property
    def unstopped(self) -> "Tuning":
        """The same decode without early stops: no divergence is below 0."""
        return self.replace(tau_refine=0.0) if self.settles else self.replace(tau_decode=0.0)
