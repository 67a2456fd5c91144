"""How the package writes a config: a frozen dataclass that is checked when built and is a JAX pytree.

Counts, names, flags and the choice of parts are structure; real numbers are leaves, scalars or one a row `[B]`, so that
configs which differ only in numbers share one compile. Every field says what it takes (`number`, `count`, `choice`,
`flag`, `part`), and the checks, the text form and the command line are read off the fields.
"""

import dataclasses
import math
import re
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lrd_jax.errors import Refused

Number = float | jax.Array | np.ndarray  # a real number, or one a row: [B]

_MOST = 2**31 - 1
MOST_WHOLE = 2**24  # float32 holds every whole number up to here
_SPEC = "lrd_jax"  # key of a field's `Spec` in its metadata


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a field takes.

    Attributes:
      kind: "number", "count", "share", "choice", "flag", "part", "array", or "static" (anything hashable, unchecked).
      low, high: bounds of a number or count; open_low leaves the lower one out.
      whole: the number has no fraction.
      names: of a choice.
      part: the base class of a part.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    whole: bool = False
    names: tuple[str, ...] = ()
    part: type | None = None

    @property
    def is_structure(self) -> bool:
        return self.kind not in ("number", "part", "array")

    @property
    def bounds(self) -> str:
        """The interval of a number, for messages."""
        low, high = (f"{x:.0f}" if self.whole else f"{x:g}" for x in (self.low, self.high))
        return f"{'(' if self.open_low else '['}{low}, {high}{']' if self.high < math.inf else ')'}"

    @property
    def wish(self) -> str:
        """What is wanted, for messages."""
        if self.kind == "number":
            return f"a {'whole ' if self.whole else ''}number in {self.bounds}, or one a row [B]"
        if self.kind == "count":
            return f"an integer of at least {self.low:g}"
        if self.kind == "share":
            return "a number in [0, 1]"
        if self.kind == "choice":
            return f"one of {', '.join(self.names)}"
        if self.kind == "flag":
            return "True or False"
        if self.kind == "array":
            return "an array"
        return f"a {self.part.__name__}" if self.part is not None else "anything hashable"


def number(
    *, default: Any = dataclasses.MISSING, low: float = 0.0, high: float = math.inf, open_low: bool = False
) -> Any:
    """A real number in [low, high], a leaf: a scalar or one a row `[B]`. A default of None makes None a value."""
    return _field(default, Spec(kind="number", low=low, high=high, open_low=open_low))


def whole(*, default: Any = dataclasses.MISSING, low: int = 0) -> Any:
    """A `number` without a fraction, at least `low`: what is counted, where it may differ from row to row."""
    return _field(default, Spec(kind="number", low=low, high=MOST_WHOLE, whole=True))


def count(*, default: Any = dataclasses.MISSING, low: int = 1, high: float = _MOST) -> Any:
    """An integer of at least `low`, structure; what is counted is counted in int32."""
    return _field(default, Spec(kind="count", low=low, high=high))


def share(*, default: Any = dataclasses.MISSING) -> Any:
    """A real number in [0, 1] that sizes are made of, structure: one for all rows."""
    return _field(default, Spec(kind="share", low=0.0, high=1.0))


def choice(*names: str, default: Any = dataclasses.MISSING) -> Any:
    """One of some names, structure."""
    return _field(default, Spec(kind="choice", names=names))


def flag(*, default: Any = dataclasses.MISSING) -> Any:
    """True or False, structure."""
    return _field(default, Spec(kind="flag"))


def part(kind: type, *, default: Any = dataclasses.MISSING) -> Any:
    """Another setting: an instance of `kind`. A default of None makes None a value."""
    return _field(default, Spec(kind="part", part=kind))


def array(*, default: Any = dataclasses.MISSING) -> Any:
    """An array of any shape, a leaf: what a learned part is made of."""
    return _field(default, Spec(kind="array"))


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """Anything hashable, structure, unchecked."""
    return _field(default, Spec(kind="static"))


def _field(default: Any, spec: Spec) -> Any:
    return dataclasses.field(default=default, metadata={_SPEC: spec})


@dataclass_transform(
    frozen_default=True, field_specifiers=(number, whole, count, share, choice, flag, part, array, static)
)
def setting(cls: type) -> type:
    """Makes `cls` a frozen dataclass whose fields are checked when it is built, and a pytree of its numbers and parts.

    A `__post_init__` of the class is called after the checks. JAX rebuilds settings without either: what it puts into
    them (tracers, shapes, placeholders) is not a user's.
    """
    own = cls.__dict__.get("__post_init__")

    def __post_init__(self):
        for name, (spec, field) in specs(type(self)).items():
            label = f"{type(self).__name__}.{name}"
            object.__setattr__(self, name, checked(label, getattr(self, name), spec, optional=field.default is None))
        if own is not None:
            own(self)

    cls.__post_init__ = __post_init__
    cls = dataclasses.dataclass(frozen=True)(cls)
    leaves = [name for name, (spec, _) in specs(cls).items() if not spec.is_structure]
    structure = [name for name, (spec, _) in specs(cls).items() if spec.is_structure]

    def flatten(self):
        return [getattr(self, name) for name in leaves], tuple(getattr(self, name) for name in structure)

    def flatten_with_keys(self):
        children, fixed = flatten(self)
        return [(jax.tree_util.GetAttrKey(name), x) for name, x in zip(leaves, children, strict=True)], fixed

    def unflatten(fixed, children):
        self = object.__new__(cls)
        for name, value in (*zip(leaves, children, strict=True), *zip(structure, fixed, strict=True)):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def specs(cls: type) -> dict[str, tuple[Spec, dataclasses.Field]]:
    """What each field of a setting takes; a plain field is a number of any size."""
    return {f.name: (f.metadata.get(_SPEC, Spec(kind="number")), f) for f in dataclasses.fields(cls)}


def text_name(cls: type) -> str:
    """How the text form names a kind of part: "lowest-entropy" for LowestEntropy; a class may say otherwise."""
    return cls.__dict__.get("text_name") or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()


def kinds(base: type) -> dict[str, type]:
    """The settings that are a `base`, by their names in the text form."""
    found = {text_name(base): base} if dataclasses.is_dataclass(base) else {}
    for cls in base.__subclasses__():
        found |= kinds(cls)
    return found


def column(x: Number) -> jax.Array:
    """A number, or one a row `[B]`, as it meets arrays `[B, W]`."""
    return jnp.asarray(x)[..., None]


def whole_number(x: Number) -> jax.Array:
    """A whole number, or one a row `[B]`, as int32."""
    return jnp.asarray(x).astype(jnp.int32)


def check_rows(value: Any, rows: int) -> None:
    """Raises ValueError unless every number of a setting is a scalar or one for each of so many rows."""
    for name, (spec, _) in specs(type(value)).items():
        given: Any = getattr(value, name)
        if given is None:
            continue
        if spec.kind == "part":
            check_rows(given, rows)
        if spec.kind == "number" and np.shape(given) not in ((), (rows,)):
            raise Refused(
                f"{type(value).__name__}.{name} has shape {list(np.shape(given))}: "
                f"a number, or one for each of the {rows} rows, [{rows}], was wanted"
            )


def checked(label: str, value: Any, spec: Spec, *, optional: bool) -> Any:
    """The value of a field as it is kept.

    Args:
      label: names the field in messages.
      optional: None is a value.

    Raises:
      ValueError: naming field, value and wish, where it cannot be meant.
    """
    if value is None and optional:
        return None
    wish = spec.wish
    if spec.kind == "number" and _is_number(value):
        good, wish = _in_range(value, spec), f"{'a whole number ' if spec.whole else ''}in {spec.bounds}"
        if good and not _is_float32(value):
            good, wish = False, "a number that float32 can hold"
        if good and isinstance(value, np.ndarray) and value.dtype.kind in "iu" and np.any(np.abs(value) > _MOST):
            good, wish = False, "whole numbers that 32 bits can hold, or floats"  # JAX would drop the upper bits
    elif spec.kind == "count":
        good = isinstance(value, int | np.integer) and not isinstance(value, bool) and spec.low <= value <= spec.high
        if isinstance(value, int | np.integer) and value > spec.high:
            wish = f"an integer of at most {spec.high:.0f}"
    elif spec.kind == "share":
        good = _is_number(value) and _is_one(value) and _in_range(value, spec)
    elif spec.kind == "choice":
        good = isinstance(value, str) and value in spec.names
    elif spec.kind == "flag":
        good = isinstance(value, bool)
    elif spec.kind == "part":
        good = isinstance(value, spec.part or object) and hasattr(value, "__dataclass_fields__")
    elif spec.kind == "array":
        good = isinstance(value, np.ndarray | jax.Array)
    else:
        good = spec.kind == "static"
    if not good:
        raise Refused(f"{label}={value!r:.200} must be {wish}{' or None' if optional else ''}")
    kept: Any = value
    if spec.kind == "count":
        return int(kept)
    if spec.kind in ("number", "share") and np.ndim(kept) == 0 and not isinstance(kept, Tracer):
        return int(kept) if spec.whole else float(kept)
    return kept


def _is_number(value: Any) -> bool:
    """Whether it is a real number, or a list `[B]` of them as an array."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
        return False
    if isinstance(value, int) and abs(value) >= 2**1000:  # float() takes no larger ones
        return False
    kind = getattr(value, "dtype", np.dtype(type(value)))
    real = jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)
    return bool(real and np.ndim(value) <= 1 and 0 not in np.shape(value))


def is_known(value: Any) -> bool:
    """Whether the values of a number can be looked at here: they are not traced, and not on other processes."""
    return not isinstance(value, Tracer) and getattr(value, "is_fully_addressable", True)


def _is_one(value: Any) -> bool:
    """Whether it is one number that is known here."""
    return not isinstance(value, Tracer) and np.ndim(value) == 0


def _in_range(value: Any, spec: Spec) -> bool:
    if not is_known(value):
        return True
    x = np.asarray(value, np.float64)
    above = x > spec.low if spec.open_low else x >= spec.low
    return bool(np.all(np.isfinite(x) & above & (x <= spec.high) & (not spec.whole or x == np.floor(x))))


def _is_float32(value: Any) -> bool:
    """Whether it is finite in the arithmetic of a decode, and 0 only where it is."""
    if not is_known(value):
        return True
    size, float32 = np.abs(np.asarray(value, np.float64)), np.finfo(np.float32)
    return bool(np.all((size == 0) | ((size >= float32.tiny) & (size <= float32.max))))


def check_count(owner: Any, field: str, low: int = 1) -> None:
    """For plain dataclasses: raises ValueError, naming field and value, unless it is None or an integer >= `low`."""
    value = getattr(owner, field)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
        raise Refused(f"{type(owner).__name__}.{field}={value!r} must be an integer of at least {low}")
