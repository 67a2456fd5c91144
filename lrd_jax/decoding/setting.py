"""How the package writes a config: a frozen dataclass that is validated when built and is a JAX pytree.

Lengths, counts, names and the choice of rules are static; real numbers are leaves, so that configs which differ only in
numbers share one compile.
"""

import dataclasses
from typing import Any, dataclass_transform

import jax


def static(default: Any = dataclasses.MISSING) -> Any:
    """A field that is part of the config's structure: changing it compiles anew."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def setting(cls: type) -> type:
    """Makes `cls` a frozen dataclass and a pytree whose leaves are the fields not marked `static`."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


def check_range(owner: Any, field: str, low: float, high: float = float("inf"), *, open_low: bool = False) -> None:
    """Raises ValueError, naming field and value, unless it is None or a finite number in [low, high].

    Traced values pass: inside a compiled function the numbers are not known.
    """
    value = getattr(owner, field)
    if not isinstance(value, int | float):
        return
    if not (low < value if open_low else low <= value) or not value <= high or value == float("inf"):
        bounds = f"{'(' if open_low else '['}{low:g}, {high:g}{']' if high < float('inf') else ')'}"
        raise ValueError(f"{type(owner).__name__}.{field}={value} must be in {bounds}")


def check_count(owner: Any, field: str, low: int = 1) -> None:
    """Raises ValueError, naming field and value, unless it is None or an integer of at least `low`."""
    value = getattr(owner, field)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
        raise ValueError(f"{type(owner).__name__}.{field}={value!r} must be an integer of at least {low}")


def check_name(owner: Any, field: str, names: tuple[str, ...]) -> None:
    """Raises ValueError, naming field and value, unless it is one of `names`."""
    if getattr(owner, field) not in names:
        raise ValueError(f"{type(owner).__name__}.{field}={getattr(owner, field)!r} must be one of {', '.join(names)}")
