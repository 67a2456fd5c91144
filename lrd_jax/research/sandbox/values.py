"""How a value crosses from one process to another: as JSON of plain types, rebuilt on the other side.

Nothing that arrives can run code, and what is rebuilt is of exactly the types below: `==` between two of them is
Python's own. A value of another class does not cross; its owner keeps it, and a number stands for it. Subclasses cross
as the type that they extend, NumPy's numbers as Python's.

Sent into the sandbox and used on both sides there, so it imports nothing of this package.
"""

import builtins
import json
import numbers
import os
from collections.abc import Callable
from typing import Any

MOST_BYTES = 32 << 20  # of one message
_EXACT_INTEGERS = 1 << 53  # JSON's digits are slow for long ones, and refused above 4300
_COLLECTIONS = {"l": list, "t": tuple, "s": set, "f": frozenset}


class NoValue(ValueError):
    """What arrived is no message."""


class Closed(EOFError):
    """The other side has gone."""


def send(to: int, value: Any, refer: Callable[[Any], int]) -> None:
    """Writes one value to a file descriptor.

    Args:
      refer: the number that stands for a value that does not cross; it may raise.
    """
    data = json.dumps(_lowered(value, refer), separators=(",", ":")).encode()
    if len(data) > MOST_BYTES:
        raise OverflowError(f"a value of {len(data)} bytes is more than {MOST_BYTES}")
    data = len(data).to_bytes(4, "big") + data
    try:
        while data:
            data = data[os.write(to, data) :]
    except BrokenPipeError:
        raise Closed from None


def receive(source: int, referred: Callable[[int], Any]) -> Any:
    """Reads one value from a file descriptor.

    Args:
      referred: what a number stands for.

    Raises:
      Closed: there is none any more.
      NoValue: it is no message.
    """
    size = int.from_bytes(_read(source, 4), "big")
    if size > MOST_BYTES:
        raise NoValue(f"a message of {size} bytes is more than {MOST_BYTES}")
    data = _read(source, size)
    try:
        return _raised(json.loads(data), referred)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise NoValue(f"a message that is none: {error}") from None


def _read(source: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            chunk = os.read(source, min(size - len(data), 1 << 20))
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise Closed
        data += chunk
    return bytes(data)


def _lowered(value: Any, refer: Callable[[Any], int]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        value = int.__int__(value)
        return value if abs(value) < _EXACT_INTEGERS else ["i", hex(value)]
    if isinstance(value, float):
        return float.__float__(value)
    for tag, kind in _COLLECTIONS.items():
        if isinstance(value, kind):
            return [tag, *(_lowered(item, refer) for item in value)]
    if isinstance(value, dict):
        return ["d", *([_lowered(key, refer), _lowered(item, refer)] for key, item in value.items())]
    if isinstance(value, bytes | bytearray):
        return ["b" if isinstance(value, bytes) else "B", value.hex()]
    if isinstance(value, range):
        return ["r", *(_lowered(bound, refer) for bound in (value.start, value.stop, value.step))]
    if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
        return ["y", value.__name__]
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _lowered(value.item(), refer)
    if isinstance(value, numbers.Rational):
        return ["F", _lowered(int(value.numerator), refer), _lowered(int(value.denominator), refer)]
    if isinstance(value, numbers.Complex):
        value = complex(value)
        return ["c", value.real, value.imag]
    if isinstance(value, numbers.Number):  # the only one that is not complex
        return ["D", str(value)]
    return ["o", refer(value)]


def _raised(lowered: Any, referred: Callable[[int], Any]) -> Any:
    if not isinstance(lowered, list):
        if isinstance(lowered, dict):
            raise TypeError("an object of JSON")
        return lowered
    tag, *rest = lowered
    if tag in _COLLECTIONS:
        return _COLLECTIONS[tag](_raised(item, referred) for item in rest)
    if tag == "d":
        return {_raised(key, referred): _raised(item, referred) for key, item in rest}
    if tag == "r":
        return range(*(_raised(bound, referred) for bound in rest))
    if tag == "F":
        from fractions import Fraction  # slow to import, and rare

        return Fraction(*(_raised(part, referred) for part in rest))
    if tag == "c":
        return complex(*rest)
    (only,) = rest
    if tag == "D":
        from decimal import Decimal

        return Decimal(only)
    if tag == "y":
        return _builtin_type(only)
    return {
        "i": lambda: int(only, 16),
        "b": lambda: bytes.fromhex(only),
        "B": lambda: bytearray.fromhex(only),
        "o": lambda: referred(only),
    }[tag]()


def _builtin_type(name: str) -> type:
    found = getattr(builtins, name)
    if not isinstance(found, type):
        raise TypeError(name)
    return found
