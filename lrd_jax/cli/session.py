"""From a command's options to a generator."""

import secrets
import sys
from collections.abc import Callable
from typing import Any

from lrd_jax.checkpoint import Loaded, load
from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.generate import Generator
from lrd_jax.options import Decoding
from lrd_jax.pods import from_first
from lrd_jax.presets import decoder
from lrd_jax.runs.options import Run
from lrd_jax.serve.options import Serve
from lrd_jax.sharding import mesh_asked
from lrd_jax.tasks import examples
from lrd_jax.text import UnknownWords


def generator_for(
    options: Decoding, *, batch: int = 1, check: Callable[[Generator], Any] = lambda empty: None
) -> Generator:
    """Loads the model that the options name, for their decoder.

    Args:
      check: called with a generator without weights, before they are read: what it refuses is known at once.

    Raises:
      ValueError: numbers that the decoder refuses, before anything is loaded; or a model that cannot be.
    """
    config = decoder(options)

    def look(empty: Loaded) -> None:
        check(Generator(empty, config, batch=batch))

    return Generator(open_model(options, look), config, batch=batch)


def open_model(options: Decoding | Run | Serve, look: Callable[[Loaded], None]) -> Loaded:
    """Loads the model that the options name, onto their mesh.

    Args:
      look: see `lrd_jax.load`.

    Raises:
      ValueError: it cannot be loaded.
    """
    use_compile_cache()
    return load(options.model, mesh_asked(options.mesh), options.dtype, note=_note, look=look)


def seed_for(options: Decoding, config: DecodeConfig) -> int | None:
    """The seed that was given; else a fresh one where the decoder draws, and None where it does not."""
    if options.seed is not None or config.draws is False:
        return options.seed
    return from_first(lambda: secrets.randbelow(2**32))


def said(error: ValueError) -> str:
    """An error's words; beside unknown words, questions that the model knows."""
    if not isinstance(error, UnknownWords):
        return str(error)
    return "\n".join(
        [
            f"the model does not know {', '.join(map(repr, error.words))}; it answers questions such as",
            *(f'  "{example}"' for example in examples()),
        ]
    )


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)
