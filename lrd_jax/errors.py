"""The one class of errors that speak to users, and what is asked of every function that they give."""

from typing import Any


class Refused(ValueError):
    """What was asked for cannot be: the message says what came, what was wanted, and what to do.

    Everything in this package that refuses raises it, or a class of it; the command line prints its words alone. Any
    other error, an ordinary `ValueError` too, is a bug and keeps its traceback.
    """


def check_function(function: Any, name: str) -> None:
    """Raises Refused for what cannot be called, before what would call it begins."""
    if not callable(function):
        raise Refused(f"{name}={function!r:.80} cannot be called; give a function")
