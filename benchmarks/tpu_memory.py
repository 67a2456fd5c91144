"""Memory per chip of LRD as the paper prints it on a TPU slice, from the TPU compiler alone: no TPU, no weights.

    pip install libtpu
    python benchmarks/tpu_memory.py --model llada-8b-instruct --tensor 8

Parameters and prompts are abstract; the compiler plans for the slice that `--topology` names.
"""

import dataclasses
import functools
import importlib.util
import os
import sys
import time
from typing import Literal

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.models import CHECKPOINTS, Model
from lrd_jax.sharding import batch_sharding, make_mesh, param_shardings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compile, and for which slice."""

    model: Literal[tuple(CHECKPOINTS)] = "llada-8b-instruct"
    topology: str = "v5e:2x4"
    """Kind of chip and shape of the slice."""
    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    batch: int = 8
    """Prompts, a multiple of data * fsdp."""
    prompt_length: int = 512
    gen_length: int = 512
    block_length: int | None = None
    """Active window; the default is the whole canvas."""


def slice_devices(topology: str) -> list[jax.Device]:
    """The chips of a slice that is not there.

    Raises:
      SystemExit: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("libtpu is not installed, and it holds the TPU compiler: pip install libtpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this machine is no TPU VM: ask no metadata server
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing here touches a device
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def compile_decode(plan: Plan, config: DecodeConfig) -> jax.stages.Compiled:
    """A decode compiled for the slice with parameters in bfloat16."""
    model = Model(CHECKPOINTS[plan.model].config)
    mesh = make_mesh(plan.data, plan.fsdp, plan.tensor, slice_devices(plan.topology))

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    params = jax.tree.map(placed, model.abstract_params(jnp.bfloat16), param_shardings(model, mesh))
    rows = functools.partial(placed, sharding=batch_sharding(mesh))
    return make_decode(model, config).lower(params, plan.batch, plan.prompt_length, rows).compile()


def main(plan: Plan) -> None:
    start = time.perf_counter()
    compiled = compile_decode(plan, DecodeConfig.paper(plan.gen_length, block_length=plan.block_length))
    memory = compiled.memory_analysis()
    rows = {
        "arguments (parameters, prompts)": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    print(f"{plan.model} on {plan.topology}: data={plan.data} fsdp={plan.fsdp} tensor={plan.tensor}")
    window = plan.block_length or plan.gen_length
    print(f"batch {plan.batch}, prompt {plan.prompt_length}, canvas {plan.gen_length}, window {window}")
    for name, size in rows.items():
        print(f"  {name:<32} {size / 2**30:7.3f} GiB a chip")
    print(f"  {'sum':<32} {sum(rows.values()) / 2**30:7.3f} GiB a chip")
    print(f"compiled in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Plan, description=__doc__))
