"""Where the command line keeps what it has compiled."""

import contextlib
import os
import tempfile
from pathlib import Path

import jax

_CACHE_BYTES = 2**30


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next run starts faster.

    A folder that the user has chosen for JAX stays. Several devices on a CPU go without a cache: JAX can abort when it
    writes their programs to one.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(base) / "lrd-jax" / "compiled"
    with contextlib.suppress(OSError):  # a read-only home costs time and nothing else
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
