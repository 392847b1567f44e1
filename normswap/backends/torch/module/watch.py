"""See what a module computes that its tree does not say: run it once and note every call of a BatchNorm operator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from normswap.backends.torch.calls import operator_name, read_call
from normswap.backends.torch.module.inputs import Arguments, called
from normswap.backends.torch.module.kinds import is_batch_norm
from normswap.backends.torch.module.model import FunctionalCall, Observed, call_name, copied, paths_of
from normswap.backends.torch.running import run_quietly, undisturbed
from normswap.backends.values import Feed

__all__ = ["watch"]

_BETWEEN = tuple(
    str(Path(torch.__file__).parent / name) for name in ("nn/functional.py", "overrides.py", "_ops.py", "utils/_")
)


def watch(module: nn.Module, feeds: Sequence[Feed], *, given: bool = False) -> Observed | None:
    """Run a copy of a module on the first inputs that it takes; None where it takes none of them.

    Args:
        module: The module, which is copied.
        feeds: Inputs to try.
        given: Whether they are the caller's, so that they have to fit.

    Raises:
        CannotRunError: If it does not run on inputs that were given.
    """
    if any(isinstance(m, LazyModuleMixin) and m.has_uninitialized_params() for m in module.modules()):
        return None  # torch copies no such module; its layers are refused
    for feed in feeds:
        assert isinstance(feed.arrays, Arguments), "feeds of this backend"
        arguments, copy = feed.arrays, copied(module)
        seen = Observed()
        with undisturbed(), _Watch(copy, seen):
            try:
                called(copy, arguments)()
            except Exception:  # whatever user code raises
                continue
        return seen
    if given:  # once more without watching, which raises what the model says
        assert isinstance(feeds[0].arrays, Arguments), "feeds of this backend"
        run_quietly(called(copied(module), feeds[0].arrays))
    return None


class _Watch(TorchFunctionMode):
    """Notes calls of BatchNorm operators while it is entered; frames on the stack tell whose they are."""

    def __init__(self, module: nn.Module, seen: Observed) -> None:
        super().__init__()
        self._paths = paths_of(module)
        self._stored = {tensor.untyped_storage().data_ptr() for tensor in module.parameters()}
        self._seen = seen
        self._known: set[tuple[str, nn.Module | None]] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        if name is not None:
            self._note(name, func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        call = read_call(func, args, kwargs)
        site, owner, path = self._place(sys._getframe(2))
        hidden = owner is not None and owner not in self._paths
        if isinstance(owner, fx.GraphModule) and not hidden:
            return  # its graph says it
        if owner is not None and path is not None and is_batch_norm(owner) and not hidden:
            self._seen.inputs.setdefault(path, []).append((tuple(call.x.shape), call.x.dtype))
            return
        where = call_name(path or "", name, site.f_code.co_filename, site.f_lineno)
        if (where, owner if hidden else None) not in self._known:  # each hidden module is one more
            self._known.add((where, owner if hidden else None))
            parameter = call.x.untyped_storage().data_ptr() in self._stored
            holder = type(owner).__name__ if hidden else ""
            self._seen.calls.append(FunctionalCall(where, call, parameter, holder))

    def _place(self, frame: FrameType | None) -> tuple[FrameType, nn.Module | None, str | None]:
        """Find the line that calls, the module whose method it is in, and the path of the innermost known module."""
        while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
            frame = frame.f_back
        assert frame is not None, "somebody calls"
        site, owner = frame, None
        current: FrameType | None = frame
        while current is not None:
            code = current.f_code
            first = current.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(first, nn.Module):
                owner = owner if owner is not None else first
                if first in self._paths:
                    return site, owner, self._paths[first][0]
            current = current.f_back
        return site, owner, None
