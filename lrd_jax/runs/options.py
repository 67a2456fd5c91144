"""What `lrd-jax run` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from lrd_jax.errors import Refused
from lrd_jax.options import STORED_DTYPE, DecoderOptions, OnMesh, check_folder, check_seed
from lrd_jax.runs.shards import parse_shard

_Shard = arg(metavar="I/N", help_behavior_hint="(default: what a Slurm array, an Indexed Job or the like says, or all)")
_System = arg(help_behavior_hint="(default: none)", metavar="TEXT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(DecoderOptions, OnMesh):
    """Answer a file of prompts, over as many machines as there are; the same command goes on after a kill.

    Attributes:
      input: JSON lines, a prompt each: "prompt" or "messages", with an "id", and "length", "seed", "stop", "canvas" or
        "numbers" of its own if it likes; or lines of OpenAI's batch files. A line that cannot be answered gets an
        error, and the exit status is 1.
      out: folder of the run. At the end answers.jsonl is in it, a line a prompt in the order of the input.
      model: an embedded model, a converted folder or a Hugging Face folder.
      dtype: of the weights.
      slots: prompts that are decoded together; one that has ended makes room for the next.
      shard: part i, from 0, of n: every n-th prompt. The shards may run at the same time, on any machines that see the
        folder, and the last one to end writes answers.jsonl.
      chat: put prompts into the model's chat template, as instruction-tuned checkpoints expect.
      system: a system prompt to begin conversations with; goes through the chat template.
      stop_text: answers end before this text; may be given several times.
      seed: of the draws at a temperature, and of random orders; a prompt's depend on it and on the prompt's line.
    """

    input: Annotated[Positional[Path], arg(metavar="IN.jsonl")]
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    model: str = "lrd-tiny-refined"
    dtype: Annotated[str | None, STORED_DTYPE] = None
    slots: int = 16
    shard: Annotated[str | None, _Shard] = None
    chat: bool = False
    system: Annotated[str | None, _System] = None
    stop_text: UseAppendAction[tuple[str, ...]] = ()
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_seed(self.seed)
        if self.slots < 1:
            raise Refused(f"slots={self.slots} must be at least 1")
        if self.shard is not None:
            parse_shard(self.shard)
        if "" in self.stop_text:
            raise Refused("stop_text='' is empty: every answer would end where it begins; leave it out")
        check_folder(self.out, "OUT")
