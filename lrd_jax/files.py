"""What a path leads to, before it is read or replaced: a device may never end, and a pipe may never begin."""

from pathlib import Path

from lrd_jax.errors import Refused


def require_file(path: Path, advice: str) -> None:
    """Raises Refused where something is there that is no file; what is absent is left to whoever opens it.

    Args:
      advice: what was wanted, or what to do.
    """
    if path.exists() and not path.is_file():
        raise Refused(f"{path} is {'a folder' if path.is_dir() else 'no file'}; {advice}")


def require_file_or_pipe(path: Path, advice: str) -> None:
    """As `require_file`, of what is read once, from end to end: a pipe such as <(...) may be meant."""
    if not path.is_fifo():
        require_file(path, advice)
