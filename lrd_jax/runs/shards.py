"""Which of a file's prompts are this process's: every n-th, as the command line or what launched the process says."""

import dataclasses
import os
import re
from collections.abc import Mapping

from lrd_jax.errors import Refused

NUM_SHARDS = "LRD_JAX_NUM_SHARDS"  # of an Indexed Job: Kubernetes tells a pod its index alone

_LAUNCHERS = (  # variables of the index and of the count
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("JOB_COMPLETION_INDEX", NUM_SHARDS),
    ("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),  # Google Cloud Batch
    ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a run, from 0.

    Attributes:
      said: the variable that said so; empty where the user or nobody did.
    """

    index: int = 0
    count: int = 1
    said: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, place: int) -> bool:
        """Whether the prompt at a place of the file, from 0, is this shard's: neighbours go to different ones."""
        return place % self.count == self.index


def parse_shard(text: str) -> Shard:
    """The shard that is written i/n. Counting from 1 is as good as counting from 0: n/n is 0/n.

    Raises:
      ValueError: it is not written so, or i is above n.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None or not 0 <= int(found[1]) <= int(found[2]) or not int(found[2]):
        raise Refused(f"shard={text!r:.80} must be written i/n, such as 0/8: part i, from 0 to n - 1, of n")
    return Shard(int(found[1]) % int(found[2]), int(found[2]))


def launched_shard(environ: Mapping[str, str] = os.environ) -> Shard:
    """The shard that a Slurm array, an Indexed Job or another launcher says this process is; all of it by default.

    Raises:
      ValueError: a launcher tells an index and no count, or numbers that do not fit; or a count of shards without one.
    """
    for index, count in _LAUNCHERS:
        if index in environ:
            return _launched(environ, index, count)
    if (count := environ.get(NUM_SHARDS, "")) not in ("", "1"):
        raise Refused(
            f"{NUM_SHARDS}={count:.40} says how many shards there are, and nothing says which of them this is: leave "
            "it out, set JOB_COMPLETION_INDEX too, or give --shard i/n"
        )
    return Shard()


def _launched(environ: Mapping[str, str], index: str, count: str) -> Shard:
    said = {name: environ[name] for name in (index, count) if name in environ}
    if index == "SLURM_ARRAY_TASK_ID":  # an array may begin anywhere, and take steps
        said |= {name: environ[name] for name in ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP") if name in environ}
    words = ", ".join(f"{name}={value:.40}" for name, value in said.items())
    if count not in said:
        raise Refused(f"{words} says which shard this is, and nothing of how many: set {count}, or give --shard i/n")
    if not all(re.fullmatch(r"[0-9]{1,9}", value) for value in said.values()):
        raise Refused(f"{words}: numbers were wanted; give --shard i/n")
    first, step = (int(said.get(f"SLURM_ARRAY_TASK_{name}", usual)) for name, usual in (("MIN", 0), ("STEP", 1)))
    place, rest = divmod(int(said[index]) - first, max(step, 1))
    if rest or not 0 <= place < int(said[count]):
        raise Refused(f"{words}: the tasks are not numbered one after another; give --shard i/n")
    return Shard(place, int(said[count]), index)
