"""What `lrd-jax eval` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Suppress, arg

from lrd_jax.errors import Refused
from lrd_jax.options import Decoding, check_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval(Decoding):
    """Measure a checkpoint on HumanEval, MBPP, GSM8K and MATH500, asked as the paper asks; a cut run goes on.

    Attributes:
      model: a converted or Hugging Face folder; gold answers with the benchmarks' own solutions, to check the grading.
      tasks: humaneval, mbpp, gsm8k, math500, with commas between.
      preset: as for generate; paper takes the checkpoint's blocks, and so do the others unless told otherwise.
      settings: whose shots, chats and blocks: llada-8b-base or -instruct, llada-1.5, dream-7b-base or -instruct.
      gen_length: positions to generate; the paper's are 256, 512 and 1024.
      data: folder of the benchmarks as JSON lines.
      limit: the first so many problems of each task.
      output: folder of records and summaries; what is there already is not decoded again.
      batch: prompts that are decoded together.
      unsafe_code: where there is no sandbox, run generated programs with your rights.
    """

    model: str = dataclasses.field()
    tasks: str = "humaneval,mbpp,gsm8k,math500"
    preset: str = "paper"
    settings: Annotated[
        str | None, arg(metavar="CHECKPOINT", help_behavior_hint="(default: what the model was converted from)")
    ] = None
    gen_length: int = 512
    data: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: the hub)")] = None
    limit: Annotated[int | None, arg(metavar="NUMBER", help_behavior_hint="(default: all)")] = None
    output: Path = Path("eval")
    batch: int = 1
    unsafe_code: bool = False
    live: Suppress[bool] = False

    def __post_init__(self):
        super().__post_init__()
        for field in ("batch", "limit"):
            if getattr(self, field) is not None and getattr(self, field) < 1:
                raise Refused(f"{field}={getattr(self, field)} must be at least 1")
        names = [name.strip() for name in self.tasks.split(",")]
        if len(set(names)) < len(names) or "" in names:
            raise Refused(f"tasks={self.tasks!r}: name one or more with commas between, each once")
        check_folder(self.output, "output")
        if self.data is not None and not self.data.is_dir():
            raise Refused(f"data={self.data}: there is no such folder; give one of the benchmarks as JSON lines")
