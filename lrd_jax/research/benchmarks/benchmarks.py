"""How the paper asks: which lm-eval task and how many shots for each kind of checkpoint, and where the data lies."""

import dataclasses
from pathlib import Path

from lrd_jax.convert.store import is_checkpoint, read_info
from lrd_jax.errors import Refused
from lrd_jax.models.checkpoints import CHECKPOINTS
from lrd_jax.presets import BENCHMARKS


@dataclasses.dataclass(frozen=True)
class Prompting:
    """How a benchmark is asked.

    Attributes:
      task: lm-eval's task, whose prompt, examples and stop strings are taken.
      shots: solved examples before the problem.
      file: of a data folder, without .jsonl or .jsonl.gz.
      runs_code: whether grading an answer runs it.
    """

    task: str
    shots: int
    file: str
    runs_code: bool = False


# Base checkpoints continue a text of solved examples, tuned ones answer a question (the paper, section 5).
BASE = {
    "humaneval": Prompting("humaneval", 0, "humaneval", runs_code=True),
    "mbpp": Prompting("mbpp", 3, "mbpp_test", runs_code=True),
    "gsm8k": Prompting("gsm8k_cot", 8, "gsm8k_test"),
    "math500": Prompting("minerva_math500", 4, "math500"),
}
INSTRUCT = {
    "humaneval": Prompting("humaneval_instruct", 0, "humaneval", runs_code=True),
    "mbpp": Prompting("mbpp_instruct", 0, "mbpp_test", runs_code=True),
    "gsm8k": Prompting("gsm8k_cot", 0, "gsm8k_test"),
    "math500": Prompting("minerva_math500", 0, "math500"),
}

BENCHMARK_OF_TASK = {asked.task: name for kind in (BASE, INSTRUCT) for name, asked in kind.items()}

# Columns that a task's prompt and our grading read of a local file.
COLUMNS = {
    "humaneval": ("prompt", "canonical_solution", "test", "entry_point"),
    "mbpp": ("text", "code", "test_list", "test_setup_code"),
    "gsm8k": ("question", "answer"),
    "math500": ("problem", "solution"),
}

# Dream's own evaluation of its base model puts the begin token before every prompt; the tokenizer does not.
BEGIN_TOKEN = frozenset({"dream-7b-base"})


def prompting(checkpoint: str, benchmark: str) -> Prompting:
    """How the paper asks this checkpoint this benchmark.

    Raises:
      ValueError: an unknown checkpoint or benchmark.
    """
    check_checkpoint(checkpoint)
    if benchmark not in BENCHMARKS:
        raise Refused(f"task {benchmark!r} is unknown; choose among {', '.join(BENCHMARKS)}")
    return (INSTRUCT if CHECKPOINTS[checkpoint].chat else BASE)[benchmark]


def check_checkpoint(name: str) -> None:
    """Raises ValueError unless it is the name of a released checkpoint."""
    if name not in CHECKPOINTS:
        raise Refused(f"settings {name!r} are unknown; choose those of {', '.join(CHECKPOINTS)}")


def checkpoint_behind(model: str, folder: Path) -> str:
    """The released checkpoint that a converted folder tells it comes from.

    Raises:
      ValueError: it comes from none of them, or does not tell.
    """
    name = checkpoint_of(read_info(folder).source) if is_checkpoint(folder) else None
    if name is None:
        raise Refused(
            f"{model} does not tell which released checkpoint it is; say whose shots, chat template and blocks to take "
            f"by --settings: {', '.join(CHECKPOINTS)}"
        )
    return name


def checkpoint_of(hub_id: str) -> str | None:
    """The released checkpoint of a hub id, None for any other source."""
    return next((name for name, preset in CHECKPOINTS.items() if preset.hub_id == hub_id), None)
