"""`lrd-jax convert`: Hugging Face weights to a checkpoint."""

import functools
from pathlib import Path

from lrd_jax.cli.compile_cache import require_device
from lrd_jax.cli.options import Convert
from lrd_jax.cli.pod import first_alone
from lrd_jax.cli.progress import tensor_progress
from lrd_jax.convert import convert
from lrd_jax.models import ModelConfig
from lrd_jax.text import has_tokenizer, load_tokenizer


def run(options: Convert) -> int:
    require_device()
    first_alone("converting", functools.partial(_convert, options))
    print(options.dest)
    return 0


def _convert(options: Convert) -> None:
    with tensor_progress("converting") as progress:
        convert(
            options.source,
            options.dest,
            dtype=options.dtype,
            verify=options.verify,
            revision=options.revision,
            progress=progress,
            look=_read_tokenizer,
        )


def _read_tokenizer(folder: Path, config: ModelConfig) -> None:
    """Raises ValueError where the checkpoint would have a tokenizer with which it cannot be loaded."""
    if has_tokenizer(folder):
        load_tokenizer(folder, config)
