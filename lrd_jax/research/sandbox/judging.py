"""The tests' side: they run here, with the program's names bound to what asks the program.

The program lives in another process, behind other walls, and sees of the tests what they call it with. Values come
back as new ones of plain types (`values`); what does not cross is a `Remote`, equal to nothing but itself. So every
comparison, every expected value and the verdict are out of the program's reach.

Sent into the sandbox, where of this package only what was sent along is there.
"""

import builtins
import os
from collections.abc import Iterator, Sequence
from typing import Any

from lrd_jax.research.sandbox.values import Closed, NoValue, receive, send

GONE = 3  # the exit status where the program had ended before its tests, or answered what is no value


def judge(
    given: str, tests: str, asked: Sequence[str], modules: Sequence[str], token: str, answers: int, questions: int
) -> None:
    """Runs tests, and writes a token once the last of them holds. A test that fails ends in its own exception.

    Args:
      given: text that runs before them and that the program has no part in.
      tests: text of the tests.
      asked: names in it that are the program's.
      modules: names in it that are modules.
      token: what says that all hold; nobody but us and who called us knows it.
      answers, questions: file descriptors, see `answering.answer`.
    """
    line = Line(answers, questions)
    names = dict(vars(builtins))
    namespace: dict[str, Any] = {"__name__": "tests", "__builtins__": names}
    try:
        line.ask("global", "__name__")  # the program has been imported, whether it is asked for more or not
        exec(compile(given, "given.py", "exec"), namespace)
        namespace |= {name: __import__(name) for name in modules}
        for name in asked:
            try:
                namespace[name] = line.ask("global", name)
            except KeyError:
                namespace.pop(name, None)  # the test that uses it says so, and finds none of Python's instead
                names.pop(name, None)
        exec(compile(tests, "tests.py", "exec"), namespace)
    except Gone as gone:
        if gone.args:
            os.write(2, f"{gone}\n".encode(errors="replace"))
    if line.gone:
        os._exit(GONE)
    os.write(1, token.encode())
    os._exit(0)


class Gone(BaseException):
    """There is no program to ask any more. No test catches it."""


class Line:
    """Asks the program."""

    def __init__(self, answers: int, questions: int):
        self.gone = False
        self._answers, self._questions = answers, questions
        self._remotes: dict[int, Remote] = {}

    def ask(self, operation: str, *operands: Any) -> Any:
        """The value that the program answers, or the exception that it states as one of ours."""
        if self.gone:
            raise Gone
        try:
            send(self._questions, [operation, *operands], _number_of)
            answer = receive(self._answers, self._remote)
        except (Closed, NoValue) as error:
            self.gone = True
            raise Gone(*error.args) from None
        match answer:
            case [value]:
                return value
            case [str(kind), str(message)]:
                raise _stated(operation, kind, message)
        self.gone = True
        raise Gone("an answer that is none")

    def _remote(self, number: int) -> "Remote":
        if not isinstance(number, int):
            raise TypeError("an object's number is no number")
        return self._remotes.setdefault(number, Remote(self, number))


class Remote:
    """An object of the program: it can be called, iterated over, asked for attributes and truth, and given back."""

    __slots__ = ("_line", "_number")

    def __init__(self, line: Line, number: int):
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._line.ask("call", self, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"the tests cannot ask the program's object for {name}")
        return self._line.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._line.ask("set", self, name, value)

    def __iter__(self) -> Iterator[Any]:
        return self._line.ask("iter", self)

    def __next__(self) -> Any:
        return self._line.ask("next", self)

    def __bool__(self) -> bool:
        return self._line.ask("bool", self)


def _number_of(value: Any) -> int:
    if isinstance(value, Remote):
        return value._number
    raise TypeError(f"the tests cannot give the program a value of type {type(value).__name__}")


def _stated(operation: str, name: str, message: str) -> Exception:
    """An exception that the program states.

    That there is no next item is one only where it was asked for: elsewhere it would end a loop of the tests.
    """
    kind = getattr(builtins, name, None)
    if kind is StopIteration and operation == "next":
        return StopIteration()
    ours = isinstance(kind, type) and issubclass(kind, Exception)
    if not ours or issubclass(kind, StopIteration | StopAsyncIteration):
        return RuntimeError(f"{name}: {message}")
    try:
        return kind(message)
    except TypeError:  # it wants more than a message
        return RuntimeError(f"{name}: {message}")
