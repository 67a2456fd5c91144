"""Whether pictures can be drawn: matplotlib comes with the extra `plots`, not with the package."""

import importlib.util

from lrd_jax.errors import Refused


def check_matplotlib() -> None:
    """Raises ValueError where matplotlib is missing, without importing it: to be known before hours are spent."""
    if importlib.util.find_spec("matplotlib") is None:
        raise Refused("pictures need matplotlib, which is not installed: pip install 'lrd-jax[plots]'")
