"""What `lrd-jax bench` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lrd_jax.errors import Refused
from lrd_jax.options import OnMesh, Yours

DEFAULT_SIZES, DEFAULT_REQUESTS, DEFAULT_SLOTS = "small", 200, 16
_LEAST_VOCAB_SIZE = 3  # a word beside the mask and the token that ends and pads

_Size = arg(help_behavior_hint="(default: that of --sizes)", metavar="NUMBER")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(Yours, OnMesh):
    """Time decoders on this machine, and beside them PyTorch code in clones of yours.

    Attributes:
      decoders: what to time: plain, llada, threshold, lrd, paper, or with a cache: prefix, dual, dllm, sparse, dkv,
        lrd+dual and so on.
      preset: of a decoder of yours, to time beside those; it is lrd where only changes are given.
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
      engine: time an engine instead, against static batches, on questions of the embedded models' tasks; the model is
        lrd-tiny-soft where none is named.
      requests: that it is asked.
      slots: of the engine, and prompts of a static batch.
      reference: clones of LLaDA, Fast-dLLM, dLLM-Cache, Sparse-dLLM or dKV-Cache, whose code decodes the same prompts.
      reference_python: a Python that has torch and what the clones need.
      json: print one JSON object instead of tables.
    """

    decoders: tuple[str, ...] = ("plain", "llada", "threshold", "lrd")
    sizes: Annotated[str | None, arg(help_behavior_hint=f"(default: {DEFAULT_SIZES})", metavar="NAME")] = None
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
    engine: bool = False
    requests: Annotated[int | None, arg(help_behavior_hint=f"(default: {DEFAULT_REQUESTS})", metavar="NUMBER")] = None
    slots: Annotated[int | None, arg(help_behavior_hint=f"(default: {DEFAULT_SLOTS})", metavar="NUMBER")] = None
    reference: tuple[Path, ...] = ()
    reference_python: Annotated[str | None, arg(help_behavior_hint="(default: this one)", metavar="PYTHON")] = None
    json: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not self.decoders or len(set(self.decoders)) < len(self.decoders):
            raise Refused(f"decoders={', '.join(self.decoders) or 'none'}: name one or more, each once")
        for field in ("prompt_length", "batch", "repeats", "requests", "slots"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise Refused(f"{field}={value} must be at least 1")
        if not 0 <= self.seed < 2**31:
            raise Refused(f"seed={self.seed} must be in [0, 2^31)")
        if self.logit_std is not None and not 0 < self.logit_std < 1000:
            raise Refused(f"logit_std={self.logit_std} must be in (0, 1000)")
        if self.vocab_size is not None and self.vocab_size < _LEAST_VOCAB_SIZE:
            raise Refused(f"vocab_size={self.vocab_size} must be at least {_LEAST_VOCAB_SIZE}: a word, mask and end")
        if self.engine and (self.reference or self._is_random):
            raise Refused("engine answers questions, with a trained model: leave references and random weights out")
        if self.model is not None and self._is_random:
            raise Refused(f"model={self.model} has its own weights: leave out what is for random ones")
        for field in ("requests", "slots"):
            if not self.engine and (value := getattr(self, field)) is not None:
                raise Refused(f"{field}={value} is of an engine: give --engine, or leave it out")
        if self.reference_python is not None and not self.reference:
            raise Refused(f"reference_python={self.reference_python} runs clones: give --reference, or leave it out")

    @property
    def _is_random(self) -> bool:
        """Whether anything was said of random weights."""
        return bool(self.random_sizes) or self.sizes is not None or self.logit_std is not None

    @property
    def random_sizes(self) -> dict[str, int]:
        """The sizes that are not those of `sizes`."""
        fields = ("vocab_size", "num_layers", "embed_dim", "mlp_dim", "num_heads")
        return {field: value for field in fields if (value := getattr(self, field)) is not None}
