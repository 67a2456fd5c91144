"""Runs a model's Python without trusting it: a tree walk over the few constructs that the `code` task uses.

Nothing is compiled or executed by Python itself. What is not listed here is rejected: attributes, imports, loops, any
call but four functions of a list. Arithmetic is on integers only, so that no list can grow; the text's length bounds
the work.
"""

import ast
import operator
from typing import Any

LONGEST_SOURCE = 2000

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
        return _call(ast.parse(source), argument)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise Rejected(str(error)) from None


def _call(tree: ast.Module, argument: Any) -> Any:
    match tree.body:
        case [ast.FunctionDef(name="f", args=ast.arguments(args=[ast.arg(arg=parameter)]), body=body)]:
            names = {parameter: list(argument) if isinstance(argument, list) else argument}
        case _:
            raise Rejected("expected exactly one function f of one argument")
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _evaluate(value, names)
            case ast.Return(value=ast.expr() as value):
                return _evaluate(value, names)
            case _:
                raise Rejected(f"statement {type(statement).__name__} is not supported")
    return None


def _evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            if name not in names:
                raise Rejected(f"name {name} is not defined")
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_integer(_evaluate(operand, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_integer(_evaluate(left, names)), _integer(_evaluate(right, names)))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return _COMPARISONS[type(op)](_evaluate(left, names), _evaluate(right, names))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_evaluate(argument, names))
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            bounds = [None if part is None else _evaluate(part, names) for part in (lower, upper, step)]
            return _evaluate(value, names)[slice(*bounds)]
        case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as loop]):
            return _comprehension(element, name, loop, names)
    raise Rejected(f"expression {type(node).__name__} is not supported")


def _comprehension(element: ast.expr, name: str, loop: ast.comprehension, names: dict[str, Any]) -> list:
    out = []
    for item in _evaluate(loop.iter, names):
        scope = names | {name: item}
        if all(_evaluate(condition, scope) for condition in loop.ifs):
            out.append(_evaluate(element, scope))
    return out


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, got {type(value).__name__}")
    return value
