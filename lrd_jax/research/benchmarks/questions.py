"""The four benchmarks as questions: lm-eval's prompts and examples, our grading."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrd_jax.errors import Refused
from lrd_jax.models.checkpoints import CHECKPOINTS
from lrd_jax.research.benchmarks.benchmarks import BEGIN_TOKEN, prompting
from lrd_jax.research.benchmarks.programs import Programs
from lrd_jax.research.benchmarks.requests import cut_at_stop
from lrd_jax.research.benchmarks.scoring import grade
from lrd_jax.research.benchmarks.tasks import chat_text, open_task, stops_of
from lrd_jax.research.questions import Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class BenchmarkQuestions:
    """The first problems of benchmarks, as many of each, asked as the paper asks a checkpoint: a `Source`.

    Attributes:
      benchmarks: of `lrd_jax.presets.BENCHMARKS`.
      checkpoint: the released one whose shots and chat template are taken.
      data: folder of the benchmarks' files; None takes them from the hub.
      programs: runs generated programs; None where no benchmark has any.
    """

    benchmarks: tuple[str, ...]
    checkpoint: str
    data: Path | None = None
    programs: Programs | None = None

    def __call__(self, count: int, seed: int, canvas: int, tokenizer: "PreTrainedTokenizerFast") -> list[Question]:
        """The problems are the same for every seed and canvas.

        Raises:
          ValueError: a benchmark with fewer problems; or see `lrd_jax.research.benchmarks.tasks`.
        """
        share, more = divmod(count, len(self.benchmarks))
        counts = [share + (i < more) for i in range(len(self.benchmarks))]
        parts = zip(self.benchmarks, counts, strict=True)
        return [question for name, some in parts if some for question in self._questions(name, some, tokenizer)]

    def _questions(self, benchmark: str, count: int, tokenizer: "PreTrainedTokenizerFast") -> list[Question]:
        with tempfile.TemporaryDirectory() as folder:
            _, loaded = open_task(Path(folder), prompting(self.checkpoint, benchmark), self.data)
        (task,) = loaded["tasks"].values()
        task.build_all_requests(
            limit=count,
            apply_chat_template=CHECKPOINTS[self.checkpoint].chat,
            fewshot_as_multiturn=True,
            chat_template=functools.partial(chat_text, tokenizer),
        )
        if len(task.instances) < count:
            raise Refused(f"{benchmark} has {len(task.instances)} problems, {count} were asked for; lower counts")
        begin = tokenizer.bos_token if self.checkpoint in BEGIN_TOKEN else ""
        return [
            Question(
                prompt=begin + instance.args[0],
                group=benchmark,
                check=functools.partial(self._check, benchmark, instance.doc, tuple(stops_of(instance.args[1]))),
            )
            for instance in task.instances
        ]

    def _check(self, benchmark: str, problem: dict[str, Any], until: tuple[str, ...], text: str) -> bool:
        grade_code = None if self.programs is None else self.programs.grade
        return bool(grade(benchmark, problem, cut_at_stop(text, until), grade_code).correct)
