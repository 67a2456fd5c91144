"""A program and its tests, kept apart: what is the program's in the tests, and what is not."""

import ast
import builtins
import dataclasses
import re
import sys

from lrd_jax.errors import Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exam:
    """What one program is asked.

    Attributes:
      program: text of the module under test, which nobody has read.
      tests: text that runs elsewhere and calls it; the program never sees it.
      given: text that runs before the tests, where they do; its names are not the program's, but for `entry_point`.
      entry_point: what `given` declares and the program defines, if there is such a thing.

    Raises:
      ValueError: the tests are no Python.
    """

    program: str
    tests: str
    given: str = ""
    entry_point: str = ""

    def __post_init__(self):
        try:
            ast.parse(self.tests)
        except SyntaxError as error:
            raise Refused(f"the tests of a program are no Python: {error}") from None

    @classmethod
    def of_texts(cls, program: str, tests: str) -> "Exam":
        """Of what lm-eval's metric gets.

        Tests that end in `check(NAME)` are HumanEval's, and the program then starts with the problem's prompt: what
        stands there before NAME is given.
        """
        match = re.search(r"^check\((\w+)\)\s*\Z", tests, re.MULTILINE)
        given = before(program, match[1]) if match else ""
        try:
            ast.parse(given)
        except SyntaxError:
            given = ""
        return cls(program=program, tests=tests, given=given, entry_point=match[1] if match else "")

    def asked(self) -> list[str]:
        """Names in the tests that are the program's: all that nobody else binds.

        A name of Python's own is Python's, unless the tests have no other, as where they are of a function `sum`.
        """
        loaded, bound = _names(self.tests)
        free = loaded - bound - _names(self.given)[1] - set(self.modules()) | {self.entry_point} - {""}
        own = free - set(dir(builtins))
        called = {node.func.id for node in ast.walk(ast.parse(self.tests)) if _calls_a_name(node)}
        return sorted(own or called & free)

    def modules(self) -> list[str]:
        """Names of Python's modules that the tests use and do not import; MBPP's leave that to the program."""
        tree = ast.parse(self.tests)
        bases = {node.value.id for node in ast.walk(tree) if _is_attribute_of_a_name(node)}
        return sorted(bases & sys.stdlib_module_names - _names(self.tests)[1])


def before(text: str, function: str) -> str:
    """What stands in a text before the definition of a function; nothing where there is none."""
    match = re.search(rf"^def\s+{re.escape(function)}\b", text, re.MULTILINE)
    return text[: match.start()] if match else ""


def _names(text: str) -> tuple[set[str], set[str]]:
    """The names that a text reads, and those that it binds anywhere."""
    loaded, bound = set(), set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loaded.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.alias(name=name, asname=other):
                bound.add(other or name.partition(".")[0])
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
    return loaded, bound


def _calls_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _is_attribute_of_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
