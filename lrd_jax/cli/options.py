"""What `lrd-jax generate`, `chat`, `convert`, `export` and `train` can be told; other commands' options stand beside
the room that does them. Imports nothing heavy: `lrd-jax --help` parses these classes alone.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lrd_jax.options import Decoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(Decoding):
    """Answer one question: the answer on standard output, the facts of the run on standard error.

    Attributes:
      question: the prompt, in quotes.
      chat: put the prompt into the model's chat template, as instruction-tuned checkpoints expect.
      json: print one JSON object instead: text, tokens, forwards, stop_reason, seconds and more.
    """

    question: Positional[str]
    chat: bool = False
    json: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(Decoding):
    """Answer questions until the input ends; each stands alone.

    Attributes:
      chat: put the prompts into the model's chat template; the embedded models have none.
    """

    chat: bool = False


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
