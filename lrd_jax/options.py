"""What every command that decodes can be told. Imports nothing heavy: `lrd-jax --help` parses these classes alone."""

import dataclasses
from typing import Annotated

from tyro.conf import arg

PRESETS_OWN = arg(help_behavior_hint="(default: the preset's)", metavar="NUMBER")


def check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must be in [0, 2^63)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """Which model decodes, and how.

    Attributes:
      model: an embedded model, a converted folder or a Hugging Face folder.
      preset: lrd, paper, plain, fast, llada, dream, the paper's settings as paper/CHECKPOINT/BENCHMARK, or a file
        that `lrd-jax calibrate` wrote.
      gen_length: positions to generate.
      block_length: active window; gen_length must be a multiple of it.
      r_f: share of its belief that a masked position feeds back, 0 to 1.
      top_p: mass of the nucleus that is fed back, 0 to 1.
      tau: beliefs that change less than this have settled, nats.
      threshold: commit every position at least this sure, 0 to 1.
      temperature: of the tokens' draw; 0 takes the likeliest.
      seed: of the draws at a temperature, and of random orders.
      live: show the canvas settling, where the output is a terminal.
    """

    model: str = "lrd-tiny-soft"
    preset: str = "lrd"
    gen_length: int = 64
    block_length: Annotated[int | None, PRESETS_OWN] = None
    r_f: Annotated[float | None, PRESETS_OWN] = None
    top_p: Annotated[float | None, PRESETS_OWN] = None
    tau: Annotated[float | None, PRESETS_OWN] = None
    threshold: Annotated[float | None, PRESETS_OWN] = None
    temperature: Annotated[float | None, PRESETS_OWN] = None
    seed: int = 0
    live: bool = True

    def __post_init__(self):
        check_seed(self.seed)
