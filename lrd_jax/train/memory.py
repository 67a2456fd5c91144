"""Whether a run can fit into the memory that there is, from its sizes alone: what is impossible aborts the process."""

import functools
import os
from pathlib import Path

import jax

from lrd_jax.errors import Refused
from lrd_jax.models import ModelConfig
from lrd_jax.train.config import Bucket, TrainConfig
from lrd_jax.train.lora import num_adapted

_STATE_BYTES = 4 * 4  # a float32 parameter, its gradient and AdamW's two moments


def require_memory(config: TrainConfig, model: ModelConfig, mesh: jax.sharding.Mesh, itemsize: int = 4) -> None:
    """Refuses sizes that cannot be trained here.

    Args:
      itemsize: bytes of a number of the model, as it is held; more than float32's are never needed.

    Raises:
      ValueError: the least that a step needs is more than there is; the message says of what and by how much.
    """
    devices = mesh.devices.size
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    copies = config.mesh.data if on_cpu else 1 / (config.mesh.fsdp * config.mesh.tensor)
    state = _state(config, model, itemsize) * copies
    activations = functools.partial(_activations, model, itemsize=itemsize, remat_blocks=config.remat_blocks)
    worst = max(config.data.buckets, key=activations)
    batch = activations(worst) / (1 if on_cpu else devices)
    available = _available(mesh.local_devices[0])
    if state + batch > available:
        where = "" if on_cpu or devices == 1 else " on every device"
        raise Refused(
            f"training needs at least {_gib(state + batch)}{where}: {_gib(state)} for {_what(config, model)} "
            f"with gradients and moments, {_gib(batch)} for a batch of {worst.batch} x ({worst.prompt} + "
            f"{worst.canvas}) tokens; {_gib(available)} are available: choose smaller sizes, smaller batches or a "
            "mesh over more devices"
        )


def num_params(model: ModelConfig) -> int:
    """Parameters of a model, counted without making any shape of it."""
    D, F, H = model.embed_dim, model.mlp_dim, model.head_dim
    heads, kv = model.num_heads * H, model.num_kv_heads * H
    block = 2 * D * heads + 2 * D * kv + 3 * D * F + 2 * D + (heads + 2 * kv if model.qkv_bias else 0)
    return model.num_layers * block + model.vocab_size * D * (1 if model.tied_head else 2) + D


def num_trained(config: TrainConfig, model: ModelConfig) -> int:
    """Numbers that a run trains."""
    return num_params(model) if config.lora is None else num_adapted(model, config.lora)


def _state(config: TrainConfig, model: ModelConfig, itemsize: int) -> int:
    frozen = 0 if config.lora is None else itemsize * num_params(model)
    return frozen + _STATE_BYTES * num_trained(config, model)


def _what(config: TrainConfig, model: ModelConfig) -> str:
    trained = f"{num_trained(config, model):,}"
    if config.lora is None:
        return f"{trained} parameters"
    return f"{num_params(model):,} frozen parameters and {trained} of adapters"


def _activations(model: ModelConfig, bucket: Bucket, itemsize: int, remat_blocks: bool) -> int:
    """Bytes that the way back needs at least: of every block input, queries, keys, values and MLP; and the logits.

    Where blocks are computed again, the inputs alone.
    """
    kv = model.num_kv_heads * model.head_dim
    tokens = bucket.batch * (bucket.prompt + bucket.canvas)
    of_block = model.embed_dim if remat_blocks else 2 * (model.embed_dim + kv + model.mlp_dim)
    blocks = tokens * model.num_layers * of_block
    return itemsize * blocks + 4 * bucket.batch * bucket.canvas * model.vocab_size


def _available(device: jax.Device) -> int:
    """Bytes that a device has for us: an accelerator's limit, or of the machine's memory what nobody holds."""
    if stats := device.memory_stats():
        return stats["bytes_limit"]
    if (meminfo := Path("/proc/meminfo")).exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
