"""Whether a run can fit into the memory that there is, from its sizes alone: what is impossible aborts the process."""

import os
from pathlib import Path

import jax

from lrd_jax.errors import Refused
from lrd_jax.models import ModelConfig
from lrd_jax.train.config import Bucket, TrainConfig

_STATE_BYTES = 4 * 4  # a float32 parameter, its gradient and AdamW's two moments


def require_memory(config: TrainConfig, model: ModelConfig, mesh: jax.sharding.Mesh) -> None:
    """Refuses sizes that cannot be trained here.

    Raises:
      ValueError: the least that a step needs is more than there is; the message says of what and by how much.
    """
    devices = mesh.devices.size
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    copies = config.mesh.data if on_cpu else 1 / (config.mesh.fsdp * config.mesh.tensor)
    state = _STATE_BYTES * num_params(model) * copies
    worst = max(config.data.buckets, key=lambda bucket: _activations(model, bucket))
    batch = _activations(model, worst) / (1 if on_cpu else devices)
    available = _available(mesh.local_devices[0])
    if state + batch > available:
        where = "" if on_cpu or devices == 1 else " on every device"
        raise Refused(
            f"training needs at least {_gib(state + batch)}{where}: {_gib(state)} for {num_params(model):,} parameters "
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


def _activations(model: ModelConfig, bucket: Bucket) -> int:
    """Bytes that the way back needs at least: of every block input, queries, keys, values and MLP; and the logits."""
    kv = model.num_kv_heads * model.head_dim
    tokens = bucket.batch * (bucket.prompt + bucket.canvas)
    blocks = tokens * model.num_layers * 2 * (model.embed_dim + kv + model.mlp_dim)
    return 4 * (blocks + bucket.batch * bucket.canvas * model.vocab_size)


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
