"""Folders that appear whole or not at all, and the files that travel with the weights."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from lrd_jax.convert.safetensors_io import ConversionError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
SIDE_FILES = (*TOKENIZER_FILES, "generation_config.json")


def require_absent(dest: Path) -> None:
    """Raises ConversionError where `dest` exists."""
    if dest.exists() or dest.is_symlink():
        raise ConversionError(f"{dest} already exists", ["remove it or choose another destination"])


@contextlib.contextmanager
def appearing(dest: Path) -> Iterator[Path]:
    """Yields an empty folder beside `dest` that is renamed to it at the end, or removed on an error.

    A killed process leaves `<dest>.partial-*` behind, never `dest`.
    """
    require_absent(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    work = dest.with_name(f"{dest.name}.partial-{uuid.uuid4().hex[:8]}")
    work.mkdir()
    try:
        yield work
        require_absent(dest)
        work.rename(dest)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def copy_files(names: tuple[str, ...], source: Path, dest: Path) -> None:
    """Copies those of the named files that `source` has."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, dest / name)
