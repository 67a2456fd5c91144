"""What every command can be told. Imports nothing heavy: `lrd-jax --help` parses these classes alone."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, Suppress, UseAppendAction, arg

_Preset = arg(help_behavior_hint="(default: the preset's)", metavar="NUMBER")
_Seed = arg(help_behavior_hint="(default: a fresh one, which the facts tell)", metavar="NUMBER")
_System = arg(help_behavior_hint="(default: none)", metavar="TEXT")


def _check_seed(seed: int | None) -> None:
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
    block_length: Annotated[int | None, _Preset] = None
    r_f: Annotated[float | None, _Preset] = None
    top_p: Annotated[float | None, _Preset] = None
    tau: Annotated[float | None, _Preset] = None
    threshold: Annotated[float | None, _Preset] = None
    temperature: Annotated[float | None, _Preset] = None
    seed: int = 0
    live: bool = True

    def __post_init__(self):
        _check_seed(self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(Decoding):
    """Answer one question, or a file of them: answers on standard output, the facts of the run on standard error.

    Attributes:
      question: the prompt, in quotes; - is all of standard input.
      input: a file of prompts instead, an answer a line: JSON lines with a "prompt" or "messages" each where its name
        ends in .jsonl, else a prompt a line. A line that cannot be answered gets an error, and the exit status is 1.
      output: file for the answers instead of standard output; it is there once all of them are.
      batch: prompts of a file that are decoded together.
      chat: put the prompt into the model's chat template, as instruction-tuned checkpoints expect.
      system: a system prompt to begin the conversation with; goes through the chat template.
      stop: the answer ends before this text; may be given several times.
      seed: of the draws at a temperature, and of random orders.
      json: print one JSON object an answer instead: text, tokens, forwards, stop_reason, seconds and more.
    """

    question: Annotated[Positional[str], arg(metavar="QUESTION")] = "-"
    input: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    output: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: standard output)")] = None
    batch: int = 1
    chat: bool = False
    system: Annotated[str | None, _System] = None
    stop: UseAppendAction[tuple[str, ...]] = ()
    seed: Annotated[int | None, _Seed] = None
    json: bool = False

    def __post_init__(self):
        _check_seed(self.seed)
        if self.input is not None and self.question != "-":
            raise ValueError("a question and --input were both given; choose one of them")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(Decoding):
    """Answer questions until the input ends; a model with a chat template keeps the conversation until /reset.

    Attributes:
      chat: keep the conversation, in the model's chat template; without, each question stands alone, as it does for
        models that have none, such as the embedded ones.
      system: a system prompt to begin the conversation with.
      stop: answers end before this text; may be given several times.
      seed: of the draws at a temperature, and of random orders.
    """

    chat: bool = True
    system: Annotated[str | None, _System] = None
    stop: UseAppendAction[tuple[str, ...]] = ()
    seed: Annotated[int | None, _Seed] = None

    def __post_init__(self):
        _check_seed(self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn Hugging Face weights into a checkpoint that loads straight onto devices.

    Attributes:
      source: a local Hugging Face folder, or a hub id such as GSAI-ML/LLaDA-8B-Instruct.
      dest: the checkpoint's folder; must not exist.
      dtype: of the written weights.
      revision: branch, tag or commit of a hub id.
      verify: read the checkpoint back and compare the hash of every tensor.
    """

    source: Positional[str]
    dest: Positional[Path]
    dtype: Annotated[str | None, arg(metavar="DTYPE", help_behavior_hint="(default: the source's)")] = None
    revision: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the newest)")] = None
    verify: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Turn a converted checkpoint back into Hugging Face safetensors.

    Attributes:
      checkpoint: a converted folder.
      dest: the Hugging Face folder to write; must not exist.
      max_shard_bytes: largest size of one safetensors file.
    """

    checkpoint: Positional[Path]
    dest: Positional[Path]
    max_shard_bytes: int = 5_000_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model from scratch, or fine-tune a checkpoint, as a TOML file says.

    Attributes:
      config: the file, such as recipes/lrd-tiny.toml. A run that was cut short goes on from its newest checkpoint.
    """

    config: Positional[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Choose the settings of refinement, stop and mixing for a model and its prompts, and write them to a preset file.

    Attributes:
      data: JSON lines with a "prompt" each; with "answer" and "task" (words or code) answers are checked, otherwise
        they are compared with those of the decode that never stops.
      model: an embedded model, a converted folder or a Hugging Face folder.
      preset: lrd, paper, the paper's settings as paper/CHECKPOINT/BENCHMARK, or a preset file: what is calibrated.
      gen_length: positions to generate.
      block_length: active window; gen_length must be a multiple of it.
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
    preset: str = "lrd"
    gen_length: int = 64
    block_length: Annotated[int | None, _Preset] = None
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
        for field in ("r_f", "tau_refine", "tau_decode", "max_entropy", "reduce", "scope"):
            if not getattr(self, field):
                raise ValueError(f"{field} needs at least one value to scan")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch} must be at least 1")
        if not 0 <= self.max_loss <= 1:
            raise ValueError(f"max_loss={self.max_loss} must be in [0, 1]")

    @property
    def picture_path(self) -> Path:
        return self.picture or self.output.with_suffix(".png")


_Size = arg(help_behavior_hint="(default: that of --sizes)", metavar="NUMBER")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Time decoders on this machine, and beside them PyTorch code in clones of yours.

    Attributes:
      decoders: what to time: plain, llada, threshold, lrd, paper, or a cache: prefix, dual, lrd+dual and so on.
      sizes: random weights in the sizes of: small, llada-8b-base and -instruct, llada-1.5, dream-7b-base and -instruct.
      model: a checkpoint instead of random weights: an embedded model, a converted or a Hugging Face folder.
      vocab_size, num_layers, embed_dim, mlp_dim, num_heads: other sizes of random weights.
      logit_std: how sure random weights are: standard deviation of their logits, nats; 5 is like a trained model.
      dtype: of the weights.
      prompt_length: random tokens of each prompt.
      gen_length: positions to generate.
      block_length: active window; gen_length must be a multiple of it.
      steps: of plain, llada, lrd and paper, which commit gen_length / steps positions each.
      threshold: of threshold and lrd, 0 to 1.
      batch: prompts that are decoded together.
      repeats: timed runs of each decoder, taken in turns; one more is made before them and not counted.
      seed: of weights and prompts.
      reference: clones of the LLaDA or Fast-dLLM repository, whose generate functions decode the same prompts.
      reference_python: a Python that has torch and what the clones need.
      json: print one JSON object instead of tables.
    """

    decoders: tuple[str, ...] = ("plain", "llada", "threshold", "lrd")
    sizes: str = "small"
    model: Annotated[str | None, arg(help_behavior_hint="(default: none)", metavar="MODEL")] = None
    vocab_size: Annotated[int | None, _Size] = None
    num_layers: Annotated[int | None, _Size] = None
    embed_dim: Annotated[int | None, _Size] = None
    mlp_dim: Annotated[int | None, _Size] = None
    num_heads: Annotated[int | None, _Size] = None
    logit_std: Annotated[float | None, arg(help_behavior_hint="(default: nearly flat)", metavar="NATS")] = None
    dtype: str = "float32"
    prompt_length: int = 128
    gen_length: int = 128
    block_length: Annotated[int | None, arg(help_behavior_hint="(default: the canvas)", metavar="NUMBER")] = None
    steps: Annotated[int | None, arg(help_behavior_hint="(default: gen_length)", metavar="NUMBER")] = None
    threshold: float = 0.9
    batch: int = 1
    repeats: int = 3
    seed: int = 0
    reference: tuple[Path, ...] = ()
    reference_python: str = sys.executable
    json: bool = False

    def __post_init__(self):
        for field in ("prompt_length", "batch", "repeats"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed={self.seed} must be in [0, 2^31)")
        if self.logit_std is not None and not 0 < self.logit_std < 1000:
            raise ValueError(f"logit_std={self.logit_std} must be in (0, 1000)")
        if self.model is not None and (self.random_sizes or self.logit_std is not None):
            raise ValueError(f"model={self.model} has its own weights: leave out what is for random ones")

    @property
    def random_sizes(self) -> dict[str, int]:
        """The sizes that are not those of `sizes`."""
        fields = ("vocab_size", "num_layers", "embed_dim", "mlp_dim", "num_heads")
        return {field: value for field in fields if (value := getattr(self, field)) is not None}


@dataclasses.dataclass(frozen=True)
class EvalTiny:  # in the list of commands only: the options are those of `lrd_jax.research.evaluate.EvalTiny`
    """Measure decoders on held-out problems of the embedded models' tasks."""


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
      dtype: of the weights.
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
    dtype: Annotated[str | None, arg(metavar="DTYPE", help_behavior_hint="(default: the stored one)")] = None
    unsafe_code: bool = False
    live: Suppress[bool] = False

    def __post_init__(self):
        super().__post_init__()
        for field in ("batch", "limit"):
            if getattr(self, field) is not None and getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
