"""The models that lm-eval sees: `lrd-jax` for its command line, and one that answers with anything that can."""

import atexit
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import simple_parse_args_string

from lrd_jax.checkpoint import Loaded, load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import to_table
from lrd_jax.errors import Refused
from lrd_jax.research.benchmarks.arguments import ModelArguments
from lrd_jax.research.benchmarks.code_eval import use_sandbox
from lrd_jax.research.benchmarks.decoding import TextDecoder
from lrd_jax.research.benchmarks.programs import Programs
from lrd_jax.research.benchmarks.progress import RunProgress
from lrd_jax.research.benchmarks.rating import Rater
from lrd_jax.research.benchmarks.records import Record, RecordFile, same_settings
from lrd_jax.research.benchmarks.requests import Answerer, Grade, Report, Request, answer_all, numbered
from lrd_jax.research.benchmarks.tasks import chat_text, stops_of
from lrd_jax.research.benchmarks.trials import RECORDS, SETTINGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Watch = Callable[[str, int], AbstractContextManager[Report]]


class AnsweringModel(LM):
    """Answers that become records; a sample that has one is not answered again."""

    def __init__(
        self,
        answerer: Answerer,
        file: RecordFile,
        *,
        tokenizer: "PreTrainedTokenizerFast | None" = None,
        grade: Callable[[Request, str], Grade] = lambda request, output: Grade(None, "not graded"),
        watch: Watch = RunProgress,
    ):
        """
        Args:
          tokenizer: whose chat template is used; None where no prompt is a chat.
          grade: see `answer_all`.
          watch: makes the context manager that is told a task's name and size, then its records.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self._answerer, self._file, self._grade, self._watch = answerer, file, grade, watch
        self.answered: list[Record] = []  # of this process's requests, in their order

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, cut at their stop strings. The canvas is the decoder's: `max_gen_toks` is not read.

        Raises:
          ValueError: as `answer_all` and the answerer do.
        """
        asked = numbered([(r.task_name, r.doc_id, r.args[0], stops_of(r.args[1]), r.doc) for r in requests])
        if not asked:
            return []
        names = ", ".join(dict.fromkeys(request.task for request in asked))
        with self._watch(names, len(asked)) as report:
            records = answer_all(asked, self._answerer, self._file, grade=self._grade, report=report)
        self.answered += records
        return [record.output for record in records]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """See `chat_text`."""
        return chat_text(self.tokenizer, chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return "" if self.tokenizer is None else self.tokenizer.name_or_path.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return (self.tokenizer.chat_template if chat_template and self.tokenizer else None) or ""

    def loglikelihood(self, requests):
        raise NotImplementedError("this model answers and rates nothing")

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError("this model answers and rates nothing")


@register_model("lrd-jax")
class LRDModel(AnsweringModel, TemplateLM):
    """A masked diffusion model with any of this package's decoders."""

    loglikelihood = TemplateLM.loglikelihood

    def __init__(self, loaded: Loaded, config: DecodeConfig, arguments: ModelArguments, file: RecordFile):
        decoder = TextDecoder(
            loaded, config, batch=arguments.batch_size, seed=arguments.seed, begin_token=arguments.begin_token
        )
        super().__init__(decoder, file, tokenizer=loaded.tokenizer)
        self._decoder, self._loaded, self._arguments = decoder, loaded, arguments
        self._temperature = float(config.draw.temperature)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "LRDModel":
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict, additional_config: dict | None = None) -> "LRDModel":
        """Loads the model.

        Raises:
          ValueError: arguments, weights or a folder of records that cannot be used.
        """
        extra = {name: value for name, value in (additional_config or {}).items() if value is not None}
        arguments = ModelArguments.read({**extra, **arg_dict})
        config = arguments.config()
        loaded = load(arguments.pretrained, dtype=arguments.dtype)
        folder = Path(arguments.records or _scratch().name)
        if arguments.records is not None:
            same_settings(folder / SETTINGS, {**dataclasses.asdict(arguments), "config": to_table(config)})
        file = RecordFile(folder / RECORDS).__enter__()  # held as long as the process lives
        return cls(loaded, config, arguments, file)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """See `AnsweringModel`.

        Raises:
          ValueError: a task that wants its answers drawn at another temperature than the decoder's.
        """
        for request in requests:
            options = request.args[1]
            wanted = float(options.get("temperature", 0.0)) if options.get("do_sample") else None
            if wanted is not None and wanted != self._temperature:
                raise Refused(
                    f"task {request.task_name} draws at temperature {wanted}, the decoder at {self._temperature}: "
                    f"add temperature={wanted} to model_args"
                )
        return super().generate_until(requests)

    @property
    def eot_token_id(self) -> int:
        return self._loaded.config.eos_id

    @property
    def prefix_token_id(self) -> int:
        begin = self._loaded.config.bos_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        if add_special_tokens is None:
            return self._decoder.encode(string)
        return self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each whole text after the begin token; a text longer than the context is refused."""
        texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
        return [self._rater.log_likelihood([self.prefix_token_id], text) for text in texts]

    def _loglikelihood_tokens(self, requests: Sequence, disable_tqdm: bool = False, **kwargs) -> list:
        """LLaDA's Monte-Carlo estimate of each continuation, and whether LLaDA's sampler would write it."""
        pairs = [(context, continuation) for _, context, continuation in requests]
        greedy = self._rater.greedy(pairs)
        return [(self._rater.log_likelihood(*pair), same) for pair, same in zip(pairs, greedy, strict=True)]

    @functools.cached_property
    def _rater(self) -> Rater:
        return Rater(
            self._loaded, samples=self._arguments.samples, batch=self._arguments.batch_size, seed=self._arguments.seed
        )


def _scratch() -> tempfile.TemporaryDirectory:
    """A folder for records that nobody keeps; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="lrd-jax-records-")
    atexit.register(folder.cleanup)
    return folder


@functools.cache
def _programs() -> Programs:
    """Made when the first program comes: most tasks have none."""
    return Programs()


# lm-eval's command line loads the metric with the task files, before there is a model.
use_sandbox(lambda program, tests: _programs().passes(program, tests))
