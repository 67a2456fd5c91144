"""Whether pictures can be drawn: matplotlib comes with the extra `plots`, not with the package."""

import importlib.util


def check_matplotlib() -> None:
    """Raises ValueError where matplotlib is missing, without importing it: to be known before hours are spent."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("pictures need matplotlib, which is not installed: pip install 'lrd-jax[plots]'")
