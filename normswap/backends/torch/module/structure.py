"""First witness: outside the planned layers two module trees are the same: tensors, attributes, sharing.

The comparison walks the two trees and nothing that the rewriter made; it shares no code with it.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.module import _WrappedHook

from normswap.backends.differences import Difference
from normswap.backends.torch.fx import compare_graphs
from normswap.backends.torch.module.model import OF_GRAPHS
from normswap.backends.torch.tensors import NO_PARAMETER, form_difference, tensor_difference

__all__ = ["Structure", "compare_structure"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, torch.memory_format)
_CODE = (FunctionType, BuiltinFunctionType, type)
_HEAP = 1 << 9  # classes written in Python, whose whole state is their __dict__


@dataclass
class Structure:
    """What was compared and what differs.

    Attributes:
        differences: What differs; empty where the structure is proved.
        modules: How many modules were compared.
        tensors: How many parameters and buffers were compared.
        bytes: How many bytes of them were compared.
        unread: Attributes that could not be compared, by the path of their module.
    """

    differences: list[Difference] = field(default_factory=list)
    modules: int = 0
    tensors: int = 0
    bytes: int = 0
    unread: list[str] = field(default_factory=list)


def compare_structure(
    before: nn.Module,
    after: nn.Module,
    planned: Mapping[str, str],
    nodes: Mapping[str, Mapping[str, str]],
    free: frozenset[str] = frozenset(),
) -> Structure:
    """Compare two modules outside the planned layers.

    Args:
        before: The original.
        after: What is claimed to be its conversion.
        planned: By the path of a replaced module, its layer's name.
        nodes: By the path of a GraphModule, the names of replaced nodes and of their layers.
        free: Names of buffers, paths included, that may have other values, of the same shape and type.
    """
    result = Structure()
    old = dict(before.named_modules(remove_duplicate=False))
    new = dict(after.named_modules(remove_duplicate=False))
    attributes = _Attributes(old, new, result)
    # What stands in a planned place may be built in any way; the probes look into it.
    inside = tuple(f"{path}." if path else "" for path in planned)

    def is_inside(path: str) -> bool:
        return path not in planned and any(path.startswith(prefix) for prefix in inside)

    for path in old.keys() | new.keys():
        if is_inside(path):
            continue
        if path not in new:
            result.differences.append(Difference(f"module {path} is gone", planned.get(path, "")))
        elif path not in old:
            result.differences.append(Difference(f"module {path} is new"))
    for path, module in old.items():
        if path not in new or is_inside(path):
            continue
        if path in planned:
            name = planned[path]
            result.differences += [Difference(f"{name}: {sentence}", name) for sentence in _of_layer(module, new[path])]
            continue
        result.modules += 1
        result.differences += map(Difference, _of_module(path, module, new[path], result, attributes, free))
        result.differences += _of_graph(path, module, new[path], nodes.get(path, {}))
    result.differences += map(Difference, _of_sharing(old, new, {path for path in old if is_inside(path)}))
    return result


def _of_layer(old: nn.Module, new: nn.Module) -> Iterator[str]:
    """Say what is wrong with a replaced module as a whole: its arithmetic is for the probes."""
    if type(old) is type(new) and old.training == new.training:
        yield "the layer was left as it was"
    for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        if len(getattr(old, kind)) != len(getattr(new, kind)):
            words = kind.strip("_").replace("_", " ")
            yield f"{len(getattr(old, kind))} {words} became {len(getattr(new, kind))}"


def _of_module(
    path: str,
    old: nn.Module,
    new: nn.Module,
    result: Structure,
    attributes: _Attributes,
    free: frozenset[str],
) -> Iterator[str]:
    label = _label(path)
    if type(old) is not type(new) and not (isinstance(old, fx.GraphModule) and isinstance(new, fx.GraphModule)):
        yield f"{label} was {type(old).__name__} and is {type(new).__name__}"
        return
    if list(old._modules.keys()) != list(new._modules.keys()):  # TorchScript has no iterator there
        yield f"{label} holds its modules in another order"
    scripted = isinstance(old, torch.jit.ScriptModule)
    for kind in ("_parameters", "_buffers"):
        mine, theirs = dict(getattr(old, kind).items()), dict(getattr(new, kind).items())
        if list(mine) != list(theirs):
            yield f"{kind.strip('_')} of {label} are {', '.join(theirs) or 'none'}, were {', '.join(mine) or 'none'}"
        for name in mine.keys() & theirs.keys():
            values = f"{path}{'.' * bool(path)}{name}" not in free
            difference = _of_tensors(mine[name], theirs[name], result, values=values)
            if difference and not (scripted and difference == NO_PARAMETER):  # which copies of TorchScript have not
                yield f"{path}{'.' * bool(path)}{name} {difference}"
    ignored = OF_GRAPHS if isinstance(old, fx.GraphModule) else set()
    # What torch.compile returns compiles the module inside anew in each copy; TorchScript is code of its own.
    if scripted or "_orig_mod" in old._modules:
        result.unread.append(f"of {type(old).__name__} {path}".rstrip())
        if old.training != new.training:
            yield f"attribute training of {label} differs"
        return
    mine, theirs = vars(old), vars(new)
    for name in (mine.keys() | theirs.keys()) - {"_modules", "_parameters", "_buffers"} - ignored:
        if name not in mine or name not in theirs:
            yield f"attribute {name} of {label} is {'new' if name in theirs else 'gone'}"
            continue
        same = attributes.same(mine[name], theirs[name])
        if same is None:
            result.unread.append(f"{path}{'.' * bool(path)}{name}")
        elif not same:
            yield f"attribute {name} of {label} differs"


def _of_graph(path: str, old: nn.Module, new: nn.Module, nodes: Mapping[str, str]) -> Iterator[Difference]:
    if isinstance(old, fx.GraphModule) and isinstance(new, fx.GraphModule):
        for difference in compare_graphs(old.graph, new.graph, nodes):
            yield difference._replace(sentence=f"{_label(path)}: {difference.sentence}")


def _label(path: str) -> str:
    return f"module {path}" if path else "the model"


def _of_tensors(old: torch.Tensor | None, new: torch.Tensor | None, result: Structure, *, values: bool = True) -> str:
    if old is None or new is None:
        return "" if old is new else f"is {'none' if new is None else 'new'}"
    if not values:
        return form_difference(old, new)
    result.tensors += 1
    if nn.parameter.is_lazy(old) or nn.parameter.is_lazy(new):
        return "" if type(old) is type(new) else "is materialized on one side only"
    result.bytes += old.numel() * old.element_size()
    return tensor_difference(old, new)


class _Attributes:
    """Compares what modules hold besides tensors and modules."""

    def __init__(self, old: Mapping[str, nn.Module], new: Mapping[str, nn.Module], result: Structure) -> None:
        self._paths = {id(m): path for tree in (new, old) for path, m in reversed(list(tree.items()))}
        self._result = result
        self._pending: set[tuple[int, int]] = set()  # pairs that are being compared: objects may hold each other

    def same(self, old: Any, new: Any) -> bool | None:
        """Whether two attributes are equal; None where that cannot be known."""
        if isinstance(old, _PLAIN) or isinstance(new, _PLAIN):
            return type(old) is type(new) and bool(old == new or old != old)
        if isinstance(old, nn.Module) and isinstance(new, nn.Module):  # compared where it is
            return True if self._paths.get(id(old), old) == self._paths.get(id(new), new) else None
        if type(old) is not type(new):
            return False
        if old is new or (id(old), id(new)) in self._pending:
            return True
        if isinstance(old, torch.Tensor):
            return not _of_tensors(old, new, self._result)
        self._pending.add((id(old), id(new)))
        try:
            return self._parts(old, new)
        finally:
            self._pending.discard((id(old), id(new)))

    def _parts(self, old: Any, new: Any) -> bool | None:
        if isinstance(old, _CODE):
            return False
        if isinstance(old, np.ndarray):
            return bool(old.dtype == new.dtype and old.shape == new.shape and old.tobytes() == new.tobytes())
        if isinstance(old, (list, tuple, deque)):
            return _all([len(old) == len(new), *map(self.same, old, new)])
        if isinstance(old, (set, frozenset)):
            return True if old == new else None
        if isinstance(old, Mapping):
            if list(map(str, old)) != list(map(str, new)):
                return False
            return _all([*map(self.same, old.values(), new.values())])
        if isinstance(old, MethodType):
            return _all([old.__func__ is new.__func__, self.same(old.__self__, new.__self__)])
        if isinstance(old, _WrappedHook):  # a copy of one lacks what functools.wraps noted
            return self.same(old.__getstate__(), new.__getstate__())
        if isinstance(old, functools.partial):
            return _all([*map(self.same, (old.func, old.args, old.keywords), (new.func, new.args, new.keywords))])
        if not type(old).__flags__ & _HEAP or not hasattr(old, "__dict__"):
            return None
        return self.same(_state(old), _state(new))


def _state(value: Any) -> Any:
    """Return what an object made of another's copy would have: its class may say that itself."""
    says = any("__getstate__" in vars(cls) for cls in type(value).__mro__[:-1])
    return value.__getstate__() if says else vars(value)


def _all(parts: list[bool | None]) -> bool | None:
    return False if False in parts else None if None in parts else True


def _of_sharing(old: Mapping[str, nn.Module], new: Mapping[str, nn.Module], inside: set[str]) -> Iterator[str]:
    """Paths that led to one module still do, and names that shared one tensor still do."""
    if _groups(old, inside) != _groups(new, inside):
        yield "modules that were one object are several now, or the other way round"

    def tensors(modules: Mapping[str, nn.Module]) -> dict[str, Any]:
        return {
            f"{path}.{name}": tensor
            for path, module in modules.items()
            if path not in inside
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None
        }

    mine, theirs = tensors(old), tensors(new)
    common = mine.keys() & theirs.keys()
    if _groups(mine, mine.keys() - common) != _groups(theirs, theirs.keys() - common):
        yield "parameters that were tied are not any more, or the other way round"


def _groups(named: Mapping[str, Any], left_out: set[str]) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, value in named.items():
        if name not in left_out:
            groups.setdefault(id(value), set()).add(name)
    return {frozenset(group) for group in groups.values()}
