"""What `lrd-jax generate`, `chat`, `convert`, `export` and `train` can be told; other commands' options stand beside
the room that does them. Imports nothing heavy: `lrd-jax --help` parses these classes alone.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from lrd_jax.errors import Refused
from lrd_jax.files import require_file_or_pipe
from lrd_jax.options import Decoding, OnMesh, Processes

_Seed = arg(help_behavior_hint="(default: a fresh one, which the facts tell)", metavar="NUMBER")
_System = arg(help_behavior_hint="(default: none)", metavar="TEXT")


def _check_stops(texts: tuple[str, ...]) -> None:
    if "" in texts:
        raise Refused("stop_text='' is empty: every answer would end where it begins; leave it out")


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
      canvas: what the answer must hold, with holes to fill in: "Tom has {4} apples" opens four positions between two
        texts, {{ and }} are braces. A line of a file may bring its own "canvas".
      stop_text: the answer ends before this text; may be given several times.
      seed: of the draws at a temperature, and of random orders.
      json: print one JSON object an answer instead: text, tokens, forwards, stop_reason, seconds and more.
    """

    question: Annotated[Positional[str], arg(metavar="QUESTION")] = "-"
    input: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    output: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: standard output)")] = None
    batch: int = 1
    chat: bool = False
    system: Annotated[str | None, _System] = None
    canvas: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="(default: all open)")] = None
    stop_text: UseAppendAction[tuple[str, ...]] = ()
    seed: Annotated[int | None, _Seed] = None
    json: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_stops(self.stop_text)
        if self.input is not None and self.question != "-":
            raise Refused("a question and --input were both given; choose one of them")
        if self.input is not None:
            require_file_or_pipe(self.input, "a file of prompts was wanted")
        if self.batch < 1:
            raise Refused(f"batch={self.batch} must be at least 1")
        if self.input is None and self.batch > 1:
            raise Refused(f"batch={self.batch} is for prompts of a file: give --input FILE, or leave --batch out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(Decoding):
    """Answer questions until the input ends; a model with a chat template keeps the conversation until /reset.

    Attributes:
      chat: keep the conversation, in the model's chat template; without, each question stands alone, as it does for
        models that have none, such as the embedded ones.
      system: a system prompt to begin the conversation with.
      stop_text: answers end before this text; may be given several times.
      seed: of the draws at a temperature, and of random orders.
    """

    chat: bool = True
    system: Annotated[str | None, _System] = None
    stop_text: UseAppendAction[tuple[str, ...]] = ()
    seed: Annotated[int | None, _Seed] = None

    def __post_init__(self):
        super().__post_init__()
        _check_stops(self.stop_text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert(Processes):
    """Turn Hugging Face weights into a checkpoint that loads straight onto devices.

    Attributes:
      source: a local Hugging Face folder, or a hub id such as GSAI-ML/LLaDA-8B-Instruct.
      dest: the checkpoint's folder; must not exist.
      dtype: of the written weights.
      quantize: int8: the blocks' matrices as integers with a scale an output channel; half the memory of bfloat16.
      revision: branch, tag or commit of a hub id.
      verify: read the checkpoint back and compare the hash of every tensor.
    """

    source: Positional[str]
    dest: Positional[Path]
    dtype: Annotated[str | None, arg(metavar="DTYPE", help_behavior_hint="(default: the source's)")] = None
    quantize: Annotated[str | None, arg(metavar="int8", help_behavior_hint="(default: not at all)")] = None
    revision: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the newest)")] = None
    verify: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Processes):
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
class Verify(Processes):
    """Check every hash of a converted checkpoint, and name what is damaged.

    Attributes:
      checkpoint: a converted folder.
    """

    checkpoint: Positional[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(OnMesh):
    """Train a model from scratch, or fine-tune a checkpoint, as a TOML file says.

    Attributes:
      config: the file, such as recipes/lrd-tiny.toml. A run that was cut short goes on from its newest checkpoint.
      mesh: instead of the file's.
    """

    config: Positional[Path]
