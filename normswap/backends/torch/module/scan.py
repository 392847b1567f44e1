"""Read in the code of a module's forward where a BatchNorm operator is called, taken or not: nothing is run."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import fx, nn

from normswap.backends.torch.calls import operator_name
from normswap.backends.torch.module.kinds import is_batch_norm
from normswap.backends.torch.module.model import FunctionalCall, call_name, paths_of
from normswap.nn import SwappedNorm

__all__ = ["scan"]

_OPERATORS = (torch._ops._Ops, torch._ops._OpNamespace, torch._ops.OpOverloadPacket)


def scan(module: nn.Module) -> list[FunctionalCall]:
    """List the calls of BatchNorm operators that modules' methods, and functions that these call, hold."""
    found: dict[str, FunctionalCall] = {}
    for inner, paths in paths_of(module).items():
        if is_batch_norm(inner) or isinstance(inner, (SwappedNorm, fx.GraphModule, torch.jit.ScriptModule)):
            continue
        for operator, file, line in _sites(type(inner)):
            name = call_name(paths[0], operator, file, line)
            found.setdefault(name, FunctionalCall(name))
    return list(found.values())


def _sites(cls: type[nn.Module]) -> Iterator[tuple[str, str, int]]:
    """Yield operator, file and line of every call that ``forward`` can reach outside of torch."""
    pending = [vars(base)["forward"] for base in cls.__mro__ if "forward" in vars(base)]
    seen: set[CodeType] = set()
    while pending:
        function = pending.pop()
        if not isinstance(function, FunctionType) or _is_torchs(function) or function.__code__ in seen:
            continue
        seen.add(function.__code__)
        for code in _with_nested(function.__code__):
            for line, target in _references(code, function, cls):
                name = operator_name(target)
                if name is not None:
                    yield name, code.co_filename, line
                elif isinstance(target, FunctionType):
                    pending.append(target)


def _is_torchs(function: FunctionType) -> bool:
    return (function.__module__ or "").partition(".")[0] == "torch"


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)


def _references(code: CodeType, function: FunctionType, cls: type) -> Iterator[tuple[int, Any]]:
    """Yield line and value of every dotted name in the code that leads to a function without running anything."""
    own = code.co_varnames[0] if code.co_argcount else None
    free = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    value: Any = None
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = _line_of(instruction, line)
        kind, name = instruction.opname, instruction.argval
        if kind in ("PUSH_NULL", "CACHE", "PRECALL", "COPY", "RESUME", "EXTENDED_ARG"):
            continue
        if kind in ("LOAD_GLOBAL", "LOAD_NAME"):
            value = function.__globals__.get(name)
        elif kind in ("LOAD_DEREF", "LOAD_CLASSDEREF") and name in free:
            value = _content(free[name])
        elif kind.startswith("LOAD_FAST") and name == own:
            value = cls
        elif kind in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType) and value is not torch.ops:
            value = vars(value).get(name)  # a module's own __getattr__ may import anything
        elif kind in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, _OPERATORS):
            value = getattr(value, name, None)
        elif kind in ("LOAD_ATTR", "LOAD_METHOD") and value is cls:
            value = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        else:
            value = None
        if value is not None and value is not cls:
            yield line, value


def _line_of(instruction: dis.Instruction, before: int) -> int:
    positions = getattr(instruction, "positions", None)  # from Python 3.11 on
    if positions is not None and positions.lineno is not None:
        return int(positions.lineno)
    return (
        before
        if not isinstance(instruction.starts_line, int) or instruction.starts_line is True
        else instruction.starts_line
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell
        return None
