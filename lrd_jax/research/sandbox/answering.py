"""The program's side: the model's text becomes the module `program`, and answers what the tests ask of it.

All that the tests let it see are the names and arguments of the calls. It may do with this side what it likes: whatever
arrives at the other is taken for a value that the program states.

Sent into the sandbox, where of this package only what was sent along is there.
"""

import builtins
import importlib
from typing import Any

from lrd_jax.research.sandbox.values import Closed, receive, send


def run(source: str) -> Any:
    """Imports a text as the module `program`, from a file in the working folder, so that `inspect` finds its lines."""
    with open("program.py", "wb") as file:
        file.write(source.encode(errors="surrogatepass"))
    return importlib.import_module("program")


def answer(source: str, questions: int, answers: int) -> None:
    """Runs a program, and then what is asked of it, until nobody asks any more.

    Args:
      source: its text.
      questions: file descriptor of the questions, each an operation and its operands.
      answers: file descriptor of the answers: a value, or an exception's name and message.
    """
    kept = Kept()
    operations = {
        "global": vars(run(source)).__getitem__,
        "call": lambda function, arguments, named: function(*arguments, **named),
        "get": getattr,
        "set": setattr,
        "iter": iter,
        "next": next,
        "bool": bool,
    }
    while True:
        try:
            operation, *operands = receive(questions, kept.objects.__getitem__)
        except Closed:
            return
        try:
            send(answers, [operations[operation](*operands)], kept.refer)
        except Closed:
            return
        except Exception as error:
            send(answers, [_builtin_name(type(error)), _message(error)], kept.refer)


class Kept:
    """Objects that do not cross, and the numbers that stand for them."""

    def __init__(self):
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def refer(self, value: Any) -> int:
        """The number of an object, the same one every time."""
        number = self._numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        return number


def _builtin_name(kind: type) -> str:
    """Of an exception, or of the nearest that it extends."""
    return next(above.__name__ for above in kind.__mro__ if getattr(builtins, above.__name__, None) is above)


def _message(error: Exception) -> str:
    try:
        return str(error)[:1000]
    except Exception:
        return "an exception without a message"
