"""What code a process runs: processes of one program must run the same."""

import hashlib
import importlib.util
import platform
from pathlib import Path

import jax
import jaxlib

from lrd_jax.version import __version__

_PACKAGES = ("lrd_jax", "lrd_jax.models", "lrd_jax.convert")  # in a checkout the last two lie beside the first


def versions() -> dict[str, str]:
    """Versions by name; this package's with a hash of its source, as a checkout changes without its version."""
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "lrd_jax": f"{__version__}, source {_source_hash()}",
    }


def _source_hash() -> str:
    found = hashlib.sha256()
    for name in _PACKAGES:
        (folder,) = importlib.util.find_spec(name).submodule_search_locations
        for file in sorted(Path(folder).rglob("*.py")):
            found.update(f"{name}/{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:12]
