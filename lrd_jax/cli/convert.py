"""`lrd-jax convert`: Hugging Face weights to a checkpoint."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from lrd_jax.cli.compile_cache import require_device
from lrd_jax.cli.options import Convert
from lrd_jax.cli.pod import first_alone
from lrd_jax.cli.progress import tensor_progress
from lrd_jax.convert import convert
from lrd_jax.errors import Refused
from lrd_jax.models import ModelConfig
from lrd_jax.pods import process_of
from lrd_jax.text import has_tokenizer, load_tokenizer


def run(options: Convert) -> int:
    require_device()
    first_alone("converting", functools.partial(_convert_apart if process_of() is not None else _convert, options))
    print(options.dest)
    return 0


def _convert_apart(options: Convert) -> None:
    """Converts in a process that is alone: Orbax would wait for all others to save with it.

    Raises:
      ValueError: what that process said.
    """
    given = {"dtype": options.dtype, "quantize": options.quantize, "revision": options.revision}
    flags = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    flags += ["--verify"] if options.verify else []
    code = "from lrd_jax.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", options.source, str(options.dest), *flags, "--num-processes", "1"],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise Refused(done.stderr.rpartition("error: ")[2].rstrip() or f"the conversion ended with {done.returncode}")


def _convert(options: Convert) -> None:
    with tensor_progress("converting") as progress:
        convert(
            options.source,
            options.dest,
            dtype=options.dtype,
            quantize=options.quantize,
            verify=options.verify,
            revision=options.revision,
            progress=progress,
            look=_read_tokenizer,
        )


def _read_tokenizer(folder: Path, config: ModelConfig) -> None:
    """Raises ValueError where the checkpoint would have a tokenizer with which it cannot be loaded."""
    if has_tokenizer(folder):
        load_tokenizer(folder, config)
