"""Memory of a compiled decode beyond the parameters, and what a step costs in operations: abstract, nothing is run.

    python benchmarks/step_memory.py
    python benchmarks/step_memory.py --logit-chunk 1024    # the logits of the whole window at once, and kept

The default is LRD over a canvas of 1,024 for 8 prompts at LLaDA's vocabulary. Temporaries are the compiler's plan for
the whole loop on this machine's platform, its carry included.
"""

import dataclasses
import time
from typing import Literal

import jax
import jax.numpy as jnp
import tyro

from lrd_jax import DecodeConfig, make_decode
from lrd_jax.decoding.reading import chunk_of
from lrd_jax.models import CHECKPOINTS, Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compile. Sizes of 0 are the preset's."""

    model: Literal[tuple(CHECKPOINTS)] = "llada-8b-base"
    embed_dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    mlp_dim: int = 1376
    dtype: Literal["float32", "bfloat16"] = "float32"
    decoder: Literal["lrd", "paper", "plain"] = "lrd"
    batch: int = 8
    prompt_length: int = 128
    gen_length: int = 1024
    block_length: int | None = None
    logit_chunk: int | None = None
    """As in DecodeConfig."""


def main(plan: Plan) -> None:
    preset = CHECKPOINTS[plan.model].config
    sizes = {name: getattr(plan, name) for name in ("embed_dim", "num_layers", "num_heads", "mlp_dim")}
    sizes = {name: size for name, size in sizes.items() if size}
    if "num_heads" in sizes:
        sizes["num_kv_heads"] = sizes["num_heads"]
    model = Model(dataclasses.replace(preset, **sizes))
    params = model.abstract_params(jnp.dtype(plan.dtype))
    changes = {"block_length": plan.block_length, "logit_chunk": plan.logit_chunk}
    config = getattr(DecodeConfig, plan.decoder)(plan.gen_length, **changes)
    B, P, G, W = plan.batch, plan.prompt_length, plan.gen_length, config.window
    start = time.perf_counter()
    lowered = make_decode(model, config).lower(params, B, P)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    D, V = model.config.embed_dim, model.config.vocab_size
    weights = sum(leaf.size for leaf in jax.tree.leaves(params["blocks"]))
    attention = 4 * B * model.config.num_layers * (P + G) ** 2 * D
    layers, head = 2 * B * (P + G) * weights + attention, 2 * B * W * D * V
    chunk = chunk_of(config, B, V)
    heads = 2 if chunk < W and "kl" in config.reads else 1
    print(plan)
    print(f"logits of {chunk} of {W} positions at a time; one position's are {4 * B * V / 2**20:.1f} MiB for {B} rows")
    print(f"parameters {sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params)) / 2**30:8.3f} GiB")
    print(f"temporaries {memory.temp_size_in_bytes / 2**30:7.3f} GiB")
    print(f"a step: layers {layers / 1e12:.2f} TFLOP, head {head / 1e12:.2f} TFLOP, {heads} times")
    print(f"compiled in {seconds:.0f} s for {jax.default_backend()}")


if __name__ == "__main__":
    main(tyro.cli(Plan, description=__doc__))
