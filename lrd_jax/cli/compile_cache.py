"""Where the command line keeps what it has compiled."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from lrd_jax.errors import Refused

_CACHE_BYTES = 2**30

_DISALLOW = ("disallow", "disallow_explicit")
_UNFIT = {  # settings of JAX for who looks for faults, with the values under which no command can run
    "jax_disable_jit": (True,),  # a decode would take hours
    "jax_no_tracing": (True,),
    "jax_numpy_dtype_promotion": ("strict",),
    "jax_numpy_rank_promotion": ("raise",),
    "jax_transfer_guard": _DISALLOW,
    "jax_transfer_guard_host_to_device": _DISALLOW,
    "jax_transfer_guard_device_to_host": _DISALLOW,
}


def require_device() -> None:
    """Raises ValueError where JAX has no device to run on, or may not run on it, before anything is done."""
    for name, value in _unfit_settings():
        raise Refused(f"{name} is {value}, and no command can run so: unset {name.upper()}")
    try:
        jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter where it knows a platform whose plugin is missing
        asked = os.environ.get("JAX_PLATFORMS")
        said = f" ({str(error).splitlines()[0]})" if str(error) else ""
        hint = f"JAX_PLATFORMS={asked} is asked for; choose one that is there, such as cpu" if asked else "try cpu"
        raise Refused(f"JAX finds no device to run on{said}; {hint}") from None


def _unfit_settings() -> Iterator[tuple[str, Any]]:
    for name, values in _UNFIT.items():
        if (value := getattr(jax.config, name, None)) in values:
            yield name, value


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next run starts faster.

    A folder that the user has chosen for JAX stays. Several devices on a CPU go without a cache: JAX can abort when it
    writes their programs to one.

    Raises:
      ValueError: see `require_device`.
    """
    require_device()
    if jax.config.jax_compilation_cache_dir is not None:
        return
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home, or a read-only one, costs time and nothing else
        base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(base) / "lrd-jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        # nor does a disk that fills up, or an entry that is damaged: JAX compiles, and would warn of each
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
