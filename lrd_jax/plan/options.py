"""What `lrd-jax plan` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lrd_jax.errors import Refused
from lrd_jax.options import DecoderOptions, check_types, mesh_sizes
from lrd_jax.plan.chips import parse_gpus, parse_slice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(DecoderOptions):
    """Plan a decode, or a training step, on devices that are not there: what fits, what it moves, how fast it may be.

    Attributes:
      model: llada-8b or dream-7b, an embedded model, a converted folder, or a Hugging Face folder, of which config.json
        is enough.
      topology: the TPU slice to compile for, such as v5e:2x4, v6e:4x4 or v5p:2x2x4; takes libtpu, and no TPU.
      train: a recipe of `lrd-jax train`: its step is planned, on its largest bucket, and no decode; takes --topology.
        The mesh and the batch are the recipe's unless given, its data and checkpoint are not read.
      slices: of that shape, joined by a slower network.
      gpu: GPUs instead, such as h100:8: what is held on them is counted, and nothing is compiled.
      mesh: sizes of data, fsdp and tensor, whose product is that of the devices. By default every split into data and
        tensor that the model allows.
      batch: prompts that are decoded together. By default the largest batch that fits is searched for.
      prompt_length: tokens of a prompt, padding included.
      dtype: of the weights.
      quantize: int8: the blocks' matrices as `lrd-jax convert --quantize int8` writes them.
      tokens_per_forward: positions that a row commits on each forward, for the estimate of tokens a second. By default
        the slowest that the decoder allows.
      json: print one JSON object instead of tables.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    topology: Annotated[str | None, arg(metavar="CHIP:SHAPE", help_behavior_hint="(this or --gpu)")] = None
    train: Annotated[Path | None, arg(metavar="RECIPE.toml", help_behavior_hint="(default: a decode)")] = None
    slices: int = 1
    gpu: Annotated[str | None, arg(metavar="KIND:NUMBER", help_behavior_hint="(this or --topology)")] = None
    mesh: Annotated[str | None, arg(metavar="data=N,fsdp=N,tensor=N", help_behavior_hint="(default: several)")] = None
    batch: Annotated[int | None, arg(metavar="NUMBER", help_behavior_hint="(default: the largest)")] = None
    prompt_length: int = 512
    dtype: str = "bfloat16"
    quantize: Annotated[str | None, arg(metavar="int8", help_behavior_hint="(default: as the model is)")] = None
    tokens_per_forward: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="(default: the least)")] = None
    json: bool = False

    def __post_init__(self):
        check_types(self)
        if (self.topology is None) == (self.gpu is None):
            raise Refused(
                "name the devices to plan for: either a slice, as in --topology v5e:2x4, or GPUs, as in --gpu h100:8"
            )
        if self.train is not None and self.topology is None:
            raise Refused("a training step is compiled, never counted: give --topology with --train, and no --gpu")
        if self.topology is not None:
            parse_slice(self.topology, self.slices)
        if self.gpu is not None:
            parse_gpus(self.gpu)
            if self.slices != 1:
                raise Refused(f"slices={self.slices} is of TPUs; --gpu {self.gpu} has none")
        if self.mesh is not None:
            mesh_sizes(self.mesh)
        if self.batch is not None and self.batch < 1:
            raise Refused(f"batch={self.batch} must be at least 1")
        if self.train is not None and self.quantize is not None:
            raise Refused(f"quantize={self.quantize} is for a decode: what is trained is never quantised")
        if self.prompt_length < 1:
            raise Refused(f"prompt_length={self.prompt_length} must be at least 1")
        tokens = self.tokens_per_forward
        if tokens is not None and not 0 < tokens <= self.gen_length:
            raise Refused(f"tokens_per_forward={tokens} must be above 0 and at most gen_length={self.gen_length}")
