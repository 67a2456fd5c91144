"""Runs a model's Python without trusting it: a tree walk over the few constructs that the `code` task uses.

Nothing is compiled or executed by Python itself. What is not listed here is rejected: attributes, imports, loops, any
call but a few functions of a list. Arithmetic is on integers of a bounded size, lists hold integers, so that neither
can grow; a count of steps bounds the work.
"""

import ast
import operator
from typing import Any

LONGEST_SOURCE = 2000
MOST_STEPS = 10_000  # expressions that one call evaluates
MOST_BITS = 1024  # of an integer that is computed with

_FUNCTIONS = {"sum": sum, "len": len, "max": max, "min": min, "sorted": sorted}
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Rejected(Exception):
    """The text is not a function of the supported subset."""


def run(source: str, argument: Any) -> Any:
    """The value that `f(argument)` of the source returns.

    Args:
      source: text of one function `def f(name): ...` of assignments and a final return.
      argument: an integer or a list of integers; a list is copied.

    Raises:
      Rejected: not Python, or outside the subset.
      ArithmeticError, LookupError, TypeError, ValueError: what Python itself raises on such code.
    """
    try:
        if len(source) > LONGEST_SOURCE:
            raise Rejected(f"{len(source)} characters; at most {LONGEST_SOURCE} are run")
        return _Call().of(ast.parse(source), argument)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise Rejected(str(error)) from None


class _Call:
    """One call of the function, which counts its steps."""

    def __init__(self):
        self.steps = 0

    def of(self, tree: ast.Module, argument: Any) -> Any:
        match tree.body:
            case [ast.FunctionDef(name="f", args=ast.arguments(args=[ast.arg(arg=parameter)]), body=body)]:
                names = {parameter: list(argument) if isinstance(argument, list) else argument}
            case _:
                raise Rejected("expected exactly one function f of one argument")
        for statement in body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = self.evaluate(value, names)
                case ast.Return(value=ast.expr() as value):
                    return self.evaluate(value, names)
                case _:
                    raise Rejected(f"statement {type(statement).__name__} is not supported")
        return None

    def evaluate(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Rejected(f"more than {MOST_STEPS} steps")
        match node:
            case ast.Constant(value=int(value)):
                return value
            case ast.Name(id=name):
                if name not in names:
                    raise Rejected(f"name {name} is not defined")
                return names[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -_integer(self.evaluate(operand, names))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](
                    _integer(self.evaluate(left, names)), _integer(self.evaluate(right, names))
                )
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                return _COMPARISONS[type(op)](self.evaluate(left, names), self.evaluate(right, names))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](self.evaluate(argument, names))
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
                bounds = [None if part is None else self.evaluate(part, names) for part in (lower, upper, step)]
                return self.evaluate(value, names)[slice(*bounds)]
            case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as loop]):
                return self.comprehension(element, name, loop, names)
        raise Rejected(f"expression {type(node).__name__} is not supported")

    def comprehension(self, element: ast.expr, name: str, loop: ast.comprehension, names: dict[str, Any]) -> list:
        out = []
        for item in self.evaluate(loop.iter, names):
            scope = names | {name: item}
            if all(self.evaluate(condition, scope) for condition in loop.ifs):
                out.append(self.evaluate(element, scope))
            if out and isinstance(out[-1], list):
                raise Rejected("a list of lists is not supported")
        return out


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, got {type(value).__name__}")
    if value.bit_length() > MOST_BITS:
        raise Rejected(f"an integer of {value.bit_length()} bits; at most {MOST_BITS}")
    return value
