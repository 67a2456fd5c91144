"""What a run's answers depend on, so that another run's answers never stand beside them."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrd_jax.checkpoint import find_model
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import to_table
from lrd_jax.version import __version__

if TYPE_CHECKING:
    from lrd_jax.runs.options import Run

_READ_BYTES = 2**20  # of a file's beginning and of its end


def made_of(options: "Run", config: DecodeConfig, input_sha256: str) -> dict[str, Any]:
    """Input, model, decoder, code version and what else was asked, JSON-ready."""
    return {
        "lrd_jax": __version__,
        "input": input_sha256,
        "model": model_sha256(find_model(options.model)),
        "dtype": options.dtype,
        "seed": options.seed,
        "chat": options.chat,
        "system": options.system,
        "stop_text": list(options.stop_text),
        "decoder": to_table(config),
    }


def model_sha256(folder: Path) -> str:
    """A hash of a model's files: their names and sizes, all of the small ones, and both ends of the large ones.

    It is the same for a copy of the folder, and takes no longer for 16 GB of weights than for a few.
    """
    hasher = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        size = file.stat().st_size
        hasher.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as opened:
            hasher.update(opened.read(_READ_BYTES))
            if size > _READ_BYTES:
                opened.seek(max(_READ_BYTES, size - _READ_BYTES))
                hasher.update(opened.read())
    return hasher.hexdigest()
