"""`lrd-jax export`: a checkpoint back to Hugging Face safetensors."""

import functools

from lrd_jax.cli.compile_cache import require_device
from lrd_jax.cli.options import Export
from lrd_jax.cli.pod import first_alone
from lrd_jax.cli.progress import tensor_progress
from lrd_jax.convert import export


def run(options: Export) -> int:
    require_device()
    first_alone("exporting", functools.partial(_export, options))
    print(options.dest)
    return 0


def _export(options: Export) -> None:
    with tensor_progress("exporting") as progress:
        export(options.checkpoint, options.dest, max_shard_bytes=options.max_shard_bytes, progress=progress)
