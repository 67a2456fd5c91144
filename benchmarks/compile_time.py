"""How long a decode takes to compile, with abstract parameters: nothing is run, no weights are needed.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --model dream-7b-instruct --batch 4

Tracing and lowering are counted apart from the compiler.
"""

import dataclasses
import time
from typing import Literal

import jax
import jax.numpy as jnp
import tyro

from lrd_jax import DecodeConfig, make_decode
from lrd_jax.models import CHECKPOINTS, Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compile."""

    model: Literal[tuple(CHECKPOINTS)] = "llada-8b-instruct"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    batch: int = 1
    prompt_length: int = 128
    gen_length: int = 256
    block_length: int | None = None


def main(plan: Plan) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    model = Model(CHECKPOINTS[plan.model].config)
    params = model.abstract_params(jnp.dtype(plan.dtype))
    print(f"{plan}; jax {jax.__version__}, {jax.default_backend()}")
    for name in ("plain", "fast", "lrd", "paper"):
        config = getattr(DecodeConfig, name)(plan.gen_length, block_length=plan.block_length)
        start = time.perf_counter()
        lowered = make_decode(model, config).lower(params, plan.batch, plan.prompt_length)
        traced = time.perf_counter()
        lowered.compile()
        print(f"{name:6} traced in {traced - start:5.1f} s, compiled in {time.perf_counter() - traced:5.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Plan, description=__doc__))
