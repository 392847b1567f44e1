"""What the text of an exported program may hold, since torch makes Python of it.

Names of nodes become names in generated code, symbolic sizes go through ``eval``, and operators are looked up among
all that torch has. An honest program has identifiers, arithmetic of sizes, and registered operators there.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

__all__ = ["check_program_text"]

_FUNCTIONS = {  # of sizes, as torch and sympy print them
    *("Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "ExprCondPair", "FloatPow"),
    *("FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv", "Integer"),
    *("IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing"),
    *("Mul", "Ne", "Not", "Or", "Piecewise", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational"),
    *("RoundDecimal", "RoundToInt", "StrictGreaterThan", "StrictLessThan", "ToFloat", "TruncToFloat", "TruncToInt"),
    *("Unequality", "Where", "abs", "bool", "ceil", "ceiling", "float", "floor", "int", "log2", "max", "min"),
    *("round", "sqrt", "trunc"),
}
# What else takes a string there would evaluate it.
_OF_STRINGS = {"Symbol": re.compile(r"[A-Za-z_]\w*"), "Float": re.compile(r"[-+.0-9e]+")}
_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple, ast.Load),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_MOST = 10_000  # characters of an expression
_FUNCTIONS_OF_TORCH = {  # that torch's own verifier lets into graphs
    *("torch._C._set_grad_enabled", "torch.autograd.grad_mode.set_grad_enabled"),
    *("torch.amp.autocast_mode._enter_autocast", "torch.amp.autocast_mode._exit_autocast"),
    "torch.fx.experimental.symbolic_shapes.cast_symbool_to_symint_guardless",
}


def check_program_text(program: Any) -> str:
    """Say what in a program's JSON could become code of its own; nothing if all is well."""
    return next(_problems(program, ""), "")


def _problems(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "metadata":  # traces for people, which nothing evaluates
                continue
            yield from _problems(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _problems(inner, key)
    elif isinstance(value, str) and key in _RULES and not _RULES[key](value):
        yield f"the {key.replace('_', ' ')} {value[:80]!r}, which could become code"


def _is_name(text: str) -> bool:
    return not text or text.isidentifier()


def _is_plain(text: str) -> bool:
    """Whether a text stays text between quotes."""
    return text.isprintable() and not set(text) & set("\"'\\")


def _is_operator(text: str) -> bool:
    """Whether a target is an operator that torch registered, or arithmetic."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", text):
        return False
    first, _, rest = text.partition(".")
    if first in ("_operator", "math"):
        found = getattr(operator if first == "_operator" else math, rest, None)
        return callable(found) and rest not in ("attrgetter", "call", "itemgetter", "methodcaller")
    if text in _FUNCTIONS_OF_TORCH or re.fullmatch(r"torch\.(sym_|_functorch\.predispatch\._)\w+", text):
        return True
    parts = text.split(".")
    if parts[:2] != ["torch", "ops"] or any(part.startswith("__") for part in parts) or len(parts) not in (4, 5):
        return False
    if parts[2] == "higher_order":
        return "triton" not in text and "torchbind" not in text
    namespace = getattr(torch.ops, parts[2], None)
    # An operator that is not registered here is harmless: torch will say that it does not know it.
    found = getattr(namespace, parts[3], None)
    known = found is None or isinstance(found, torch._ops.OpOverloadPacket)
    return isinstance(namespace, torch._ops._OpNamespace) and known and "file" not in parts[3]


def _is_size(text: str) -> bool:
    """Whether an expression is arithmetic of sizes, and of sizes of inputs: ``L['x'].size()[0]``."""
    if len(text) > _MOST:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    return _is_arithmetic(tree)


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float))
    if isinstance(node, ast.Name):
        return not node.id.startswith("__")
    if isinstance(node, ast.Subscript):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        is_key = isinstance(key, int) or (isinstance(key, str) and _is_plain(key))
        return is_key and _is_arithmetic(node.value)
    if isinstance(node, ast.Call):
        return _is_call(node)
    return isinstance(node, _ARITHMETIC) and all(map(_is_arithmetic, ast.iter_child_nodes(node)))


def _is_call(node: ast.Call) -> bool:
    if not all(isinstance(keyword.value, ast.Constant) and keyword.arg for keyword in node.keywords):
        return False
    if isinstance(node.func, ast.Attribute):
        return _is_method(node.func, bool(node.args)) and all(map(_is_arithmetic, node.args))
    if not isinstance(node.func, ast.Name):
        return False
    if node.func.id in _OF_STRINGS:
        texts = [value.value for value in node.args if isinstance(value, ast.Constant)]
        known = _OF_STRINGS[node.func.id]
        return len(texts) == len(node.args) and all(isinstance(t, str) and known.fullmatch(t) for t in texts)
    return node.func.id in _FUNCTIONS and all(map(_is_arithmetic, node.args))


def _is_method(function: ast.Attribute, has_arguments: bool) -> bool:
    if isinstance(function.value, ast.Name) and function.value.id == "math":
        return function.attr in ("ceil", "floor", "log2", "sqrt", "trunc")
    return (
        function.attr in ("size", "stride", "storage_offset") and not has_arguments and _is_arithmetic(function.value)
    )


def _is_container(text: str) -> bool:
    """Whether a tree of inputs or outputs has plain keys, and no type that is imported to be made."""
    try:
        return all(map(_is_plain, _strings(json.loads(text))))
    except ValueError:
        return False


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings of a tree, those of JSON inside strings of JSON included."""
    if isinstance(value, Mapping):
        if "default_factory_module" in value or "__enum__" in value:
            yield '"'  # names a module to import: as bad as a quote
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            inner = value
        if isinstance(inner, (Mapping, list)):
            yield from _strings(inner)
        else:
            yield str(inner)


_RULES: dict[str, Callable[[str], bool]] = {  # by the key under which a string stands
    "name": _is_name,
    "as_name": _is_name,
    "user_input_name": _is_name,
    "forward_arg_names": _is_name,
    "parameter_name": _is_plain,
    "buffer_name": _is_plain,
    "tensor_constant_name": _is_plain,
    "custom_obj_name": _is_plain,
    "fqn": _is_plain,
    "target": _is_operator,
    "as_operator": _is_operator,
    "expr_str": _is_size,
    "guards_code": _is_size,
    "in_spec": _is_container,
    "out_spec": _is_container,
}
