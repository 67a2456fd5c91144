"""`lrd-jax convert`: Hugging Face weights to a checkpoint."""

from lrd_jax.cli.compile_cache import require_device
from lrd_jax.cli.options import Convert
from lrd_jax.cli.progress import tensor_progress
from lrd_jax.convert import convert


def run(options: Convert) -> int:
    require_device()
    with tensor_progress("converting") as progress:
        convert(
            options.source,
            options.dest,
            dtype=options.dtype,
            verify=options.verify,
            revision=options.revision,
            progress=progress,
        )
    print(options.dest)
    return 0
