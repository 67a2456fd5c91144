"""What `lrd-jax calibrate` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lrd_jax.errors import Refused
from lrd_jax.options import STORED_DTYPE, DecoderOptions, OnMesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrate(DecoderOptions, OnMesh):
    """Choose the settings of refinement, stop and mixing for a model and its prompts, and write them to a preset file.

    Attributes:
      data: JSON lines with a "prompt" each; with "answer" and "task" (such as words) answers are checked, otherwise
        they are compared with those of the decode that never stops.
      model: an embedded model, a converted folder or a Hugging Face folder.
      dtype: of the weights.
      preset: lrd, paper, settle, the paper's settings as paper/CHECKPOINT/BENCHMARK, or a preset file: what is
        calibrated; a decoder that settles and then commits all has no tau_decode and no max_entropy.
      chat: put the prompts into the model's chat template.
      r_f: values to scan: share of its belief that a masked position feeds back, 0 to 1.
      tau_refine: values to scan: refinement ends below this divergence, nats.
      tau_decode: values to scan: the stop asks for less divergence than this, nats.
      max_entropy: values to scan: the stop asks for less entropy than this at every open position, nats; inf: no guard.
      reduce: ways to scan that a window's divergence becomes one number: mean, sum, max.
      scope: positions to scan that it counts: block, masked.
      max_loss: the preset is the front's knee among settings that lose no more quality than this.
      risk: certify instead of scanning: the share of answers that early stops may change, 0 to 1.
      confidence: that the certificate holds, 0 to 1.
      batch: prompts decoded together.
      output: the preset file, .json or .toml; an older one is replaced.
      picture: of the front.
    """

    data: Path
    model: str = "lrd-tiny-soft"
    dtype: Annotated[str | None, STORED_DTYPE] = None
    chat: bool = False
    r_f: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    tau_refine: tuple[float, ...] = (0.01, 0.1, 1.0)
    tau_decode: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    max_entropy: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, float("inf"))
    reduce: tuple[str, ...] = ("mean", "sum", "max")
    scope: tuple[str, ...] = ("block", "masked")
    max_loss: float = 0.05
    risk: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint="(default: scan)")] = None
    confidence: float = 0.95
    batch: int = 32
    output: Path = Path("preset.toml")
    picture: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: beside the output)")] = None

    def __post_init__(self):
        super().__post_init__()
        for field in ("r_f", "tau_refine", "tau_decode", "max_entropy", "reduce", "scope"):
            if not getattr(self, field):
                raise Refused(f"{field} needs at least one value to scan")
        if self.risk is None and not 0 < self.confidence < 1:
            raise Refused(f"confidence={self.confidence} must be above 0 and below 1, as in --confidence 0.95")
        if self.batch < 1:
            raise Refused(f"batch={self.batch} must be at least 1")
        if not 0 <= self.max_loss <= 1:
            raise Refused(f"max_loss={self.max_loss} must be in [0, 1]")

    @property
    def picture_path(self) -> Path:
        return self.picture or self.output.with_suffix(".png")
