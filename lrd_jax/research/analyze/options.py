"""What `lrd-jax analyze` can be told. Imports nothing heavy: the command line parses it before JAX is there."""

import dataclasses
from pathlib import Path
from typing import Annotated

from lrd_jax.errors import Refused
from lrd_jax.options import STORED_DTYPE, DecoderOptions, OnMesh, check_folder, check_seed

PARTS = ("stops", "trajectories", "domains")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analyze(DecoderOptions, OnMesh):
    """Look into LRD's open questions on a model: early stops that are wrong, embedding trajectories, new domains.

    Attributes:
      model: an embedded model, a converted folder or a Hugging Face folder.
      dtype: of the weights.
      preset: the decoder that is looked into, with mixing and refinement; it is never stopped.
      output: folder for data (JSON), tables (Markdown) and pictures (PNG); a part whose data is there is not run again.
      what: any of stops, trajectories, domains.
      data: JSON-lines files with a "prompt" on each line, a domain each, the first the one to tune on; without them,
        the embedded models' tasks and longer problems than they were trained on.
      chat: put the prompts into the model's chat template, as instruction-tuned checkpoints expect.
      count: prompts of a domain.
      gen_length: positions to generate, as one block.
      batch: rows decoded together.
      r_f: feedback ratios of the sweep, ascending; the first is what the others are compared with.
      refinements: forwards of refinement before the first commit, in the sweep.
      per_step: positions that each forward of the sweep commits after refinement.
      risk: share of changed answers that a tuned stop may have on the domain it is tuned on.
      seed: of the held-out problems.
    """

    model: str = "lrd-tiny-soft"
    dtype: Annotated[str | None, STORED_DTYPE] = None
    preset: str = "paper"
    output: Path
    what: tuple[str, ...] = PARTS
    data: tuple[Path, ...] = ()
    chat: bool = False
    count: int = 100
    batch: int = 25
    r_f: tuple[float, ...] = (0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    refinements: int = 8
    per_step: int = 4
    risk: float = 0.02
    seed: int = 1

    def __post_init__(self):
        super().__post_init__()
        if not self.what or (unknown := set(self.what) - set(PARTS)):
            got = ", ".join(sorted(unknown)) if self.what else "nothing"
            raise Refused(f"what={got} is unknown; choose any of {', '.join(PARTS)}")
        for field, low in (("count", 1), ("gen_length", 2), ("batch", 1), ("refinements", 3), ("per_step", 1)):
            if getattr(self, field) < low:
                raise Refused(f"{field}={getattr(self, field)} must be at least {low}")
        if not self.r_f or list(self.r_f) != sorted(set(self.r_f)) or not 0 <= self.r_f[0] <= self.r_f[-1] <= 1:
            raise Refused(f"r_f={self.r_f} must ascend within [0, 1]")
        if not 0 <= self.risk < 1:
            raise Refused(f"risk={self.risk} must be in [0, 1)")
        check_seed(self.seed)
        check_folder(self.output, "output")
        if len(set(self.data)) < len(self.data):
            raise Refused(f"data={', '.join(map(str, self.data))}: name each file once")
        for path in self.data:
            if not path.is_file():
                raise Refused(f'data={path}: no such file; give JSON lines such as {{"prompt": "..."}}')
