"""ModuleModel: an nn.Module as the backend holds it; what is wrapped around it is taken off."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from normswap.backends.torch.calls import BatchNormCall
from normswap.errors import UnsupportedModelError, first_line
from normswap.nn import Layout, layout_of
from normswap.words import some

__all__ = ["OF_GRAPHS", "FunctionalCall", "ModuleModel", "Observed", "call_name", "copied", "paths_of", "unwrapped"]

# What a GraphModule makes of its graph.
OF_GRAPHS = {"_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras", "forward"}
_COPIED = OF_GRAPHS | {"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"}  # by its own __deepcopy__


@dataclass(frozen=True, eq=False)
class FunctionalCall:
    """A call of a BatchNorm operator that belongs to no BatchNorm module.

    Attributes:
        name: Where it stands: the module's path, the operator, file and line.
        call: Its arguments when it ran first; None where it was only read in the code.
        parameter: Whether it normalizes a parameter.
        holder: What makes it unreachable besides being a call: a class that is not in the module tree, or nothing.
    """

    name: str
    call: BatchNormCall | None = None
    parameter: bool = False
    holder: str = ""


@dataclass(frozen=True, eq=False)
class Observed:
    """What one run of a model showed.

    Attributes:
        inputs: By the path of each BatchNorm module that ran: the shape and dtype of x of every call.
        calls: Calls of BatchNorm operators outside of BatchNorm modules.
    """

    inputs: dict[str, list[tuple[tuple[int, ...], torch.dtype]]] = field(default_factory=dict)
    calls: list[FunctionalCall] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ModuleModel:
    """A module and what is known of it.

    Attributes:
        module: The module; whoever runs or changes it takes a copy first.
        wrappers: The classes that were wrapped around it, the outermost first.
        seen: What a run of it showed; None where it was not run.
    """

    module: nn.Module
    wrappers: tuple[type[nn.Module], ...] = ()
    seen: Observed | None = None

    @property
    def public(self) -> nn.Module:
        """What the caller gets: the module."""
        return self.module

    @property
    def notes(self) -> list[str]:
        """What was done to the model when it was loaded, and what of it is taken on trust."""
        notes = [
            f"{wrapper.__name__} was taken off: names and the converted model are those of the module inside"
            for wrapper in self.wrappers
        ]
        modules = list(self.module.named_modules())
        sync = [path for path, module in modules if isinstance(module, nn.SyncBatchNorm)]
        if sync:
            notes.append(
                f"{some(sync)}: SyncBatchNorm trains with the statistics of all processes together; each is compared "
                "and converted as one process computes it"
            )
        taught = {type(module).__name__ for _, module in modules if layout_of(module) not in (None, Layout())}
        if taught:
            notes.append(
                f"what {', '.join(sorted(taught))} does besides BatchNorm is taken from normswap.nn.LAYOUTS: only the "
                "last witness can tell whether that is true"
            )
        if self.seen is None:
            notes.append(
                "the model was not run to see what it calls: shapes are those that its classes imply, and a BatchNorm "
                "that is held outside of its module tree would not be seen; give inputs"
            )
        return notes


def unwrapped(module: nn.Module) -> ModuleModel:
    """Take off wrappers for training and compiling.

    Raises:
        UnsupportedModelError: If what is inside cannot be reached.
    """
    wrappers: list[type[nn.Module]] = []
    while True:
        kind = type(module).__name__
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        elif kind == "OptimizedModule":  # what torch.compile returns
            inner = module._orig_mod
        elif isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"{kind}: a TorchScript module, whose code is fixed; convert the nn.Module that it was made from"
            )
        elif kind == "FullyShardedDataParallel":
            raise UnsupportedModelError(
                f"{kind}: its parameters are sharded over processes; convert the module before wrapping it"
            )
        else:
            return ModuleModel(module, tuple(wrappers))
        assert isinstance(inner, nn.Module), "a wrapper holds a module"
        wrappers.append(type(module))
        module = inner


def copied(module: nn.Module) -> nn.Module:
    """Copy a module deeply, so that it can be run and changed.

    Raises:
        UnsupportedModelError: If it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for inner in module.modules():
        for value in vars(inner).values():
            # Results of hooks such as the old weight_norm's: torch copies no tensor that has a history.
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch copies a GraphModule by functions that it calls deprecated itself
            made = copy.deepcopy(module, memo)
            for old, new in zip(module.modules(), made.modules(), strict=True):
                if isinstance(old, fx.GraphModule):  # which copies its graph and leaves the rest behind, hooks too
                    left = {name: value for name, value in vars(old).items() if name not in _COPIED}
                    vars(new).update(copy.deepcopy(left, memo))
            return made
    except Exception as error:  # whatever user code raises
        raise UnsupportedModelError(
            f"{type(module).__name__}: it cannot be copied, and the original is never changed: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def paths_of(module: nn.Module) -> dict[nn.Module, list[str]]:
    """List every module with all paths that lead to it."""
    found: dict[nn.Module, list[str]] = {}
    for path, inner in module.named_modules(remove_duplicate=False):
        found.setdefault(inner, []).append(path)
    return found


def call_name(path: str, operator: str, file: str, line: int) -> str:
    """Name a functional call by its module and its place in the code."""
    return f"{path}{':' * bool(path)}{operator}@{Path(file).name}:{line}"
