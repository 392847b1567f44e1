"""End-to-end inputs of a module: those given, bound to its forward, else guessed from its first layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from normswap.backends.generated import drawn
from normswap.backends.torch.tensors import spelled, tensors_in, to_array, to_tensor
from normswap.backends.values import Feed
from normswap.data.declared import Declared
from normswap.errors import CannotRunError
from normswap.layer import Array

__all__ = ["Arguments", "ModuleInputs", "called"]

_EXTENTS = (64, 32, 224, 16, 256)  # of generated images, volumes and signals; the first that the model takes is used
_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Arguments(Mapping[str, Any]):
    """The arguments of one call: by the names of the parameters that the original has, and as they are passed.

    A module that stands in for the original may call its parameters otherwise, so that they are passed as given.
    """

    def __init__(self, bound: inspect.BoundArguments) -> None:
        self.args, self.kwargs = bound.args, bound.kwargs
        self._by_name = dict(bound.arguments)

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


@dataclass(frozen=True, eq=False)
class ModuleInputs:
    """The inputs of a module: the arguments of its forward."""

    module: nn.Module

    @property
    def declared(self) -> tuple[Declared, ...]:
        """Nothing: a module does not declare what it takes."""
        return ()

    def bind(self, values: Any) -> Arguments:
        """Bind a tensor, a tuple or list of positional arguments, or a mapping of named ones; arrays become tensors.

        Raises:
            CannotRunError: If they do not fit forward's parameters.
        """
        device = _device(self.module)
        values = torch.utils._pytree.tree_map_only(np.ndarray, lambda array: to_tensor(array, device), values)
        if isinstance(values, Mapping):
            arguments = _bound(self.module, (), values)
            if isinstance(self.module, fx.GraphModule):  # exported with keywords it takes nothing else
                arguments.args, arguments.kwargs = (), dict(values)
            return arguments
        return _bound(self.module, tuple(values) if isinstance(values, (tuple, list)) else (values,), {})

    def fit(self, arrays: Mapping[str, Array]) -> Arguments:
        """Bind arrays that come from elsewhere: by name where forward's names are among theirs, else by order.

        Raises:
            CannotRunError: If there are more or fewer than forward takes.
        """
        module = self.module
        names = [parameter.name for parameter in _parameters(module)]
        required = [parameter.name for parameter in _parameters(module) if parameter.default is parameter.empty]
        device = _device(module)
        by_name = {name: array for name, array in arrays.items() if name in names}  # others may be outputs
        if by_name and set(required) <= set(by_name):
            return _bound(module, (), {name: to_tensor(array, device) for name, array in by_name.items()})
        if not len(required) <= len(arrays) <= len(names):
            raise CannotRunError(
                f"the inputs hold {len(arrays)} arrays ({', '.join(arrays)}), where {type(module).__name__}.forward "
                f"takes {', '.join(names)}"
            )
        tensors = [to_tensor(array, device) for array in arrays.values()]
        return _bound(module, (), dict(zip(names, tensors, strict=False)))

    def generate(self, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int) -> Iterator[Feed]:
        """Generate tensors of the shape that the first layer suggests.

        Raises:
            CannotRunError: If a shape names no parameter of forward, or none can be guessed.
        """
        return _generated(self.module, shapes, seed, batch)

    def to_arrays(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Return the tensors among bound arguments in their order, for another framework, by parameter and place."""
        named: dict[str, Array] = {}
        for name, value in values.items():
            tensors = tensors_in(value)
            for index, tensor in enumerate(tensors):
                named[name if len(tensors) == 1 else f"{name}[{index}]"] = to_array(tensor)
        return named


def called(module: nn.Module, arguments: Mapping[str, Any]) -> Callable[[], Any]:
    """Return the call of a module on copies of arguments, so that it cannot write into the caller's.

    What the module would compile (parts of it, or the branches of torch.cond) runs as written: compiled code holds
    neither the layers that are watched nor those that stand in for others.
    """
    assert isinstance(arguments, Arguments), "inputs of this backend"
    given = (arguments.args, arguments.kwargs)

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().clone()

    def call() -> Any:
        args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, copy, given)
        with torch.compiler.set_stance("force_eager"):
            return module(*args, **kwargs)

    return call


def _bound(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    try:
        return Arguments(inspect.signature(module.forward).bind(*args, **kwargs))
    except TypeError as error:
        raise CannotRunError(
            f"the inputs do not fit {type(module).__name__}.forward{inspect.signature(module.forward)}: {error}"
        ) from error


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]


def _device(module: nn.Module) -> torch.device:
    tensor = next(iter([*module.parameters(), *module.buffers()]), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _generated(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int) -> Iterator[Feed]:
    required = [p.name for p in _parameters(module) if p.default is p.empty]
    for name in shapes:
        if name not in {parameter.name for parameter in _parameters(module)}:
            raise CannotRunError(
                f"--shape names {name!r}, which is not an input; {type(module).__name__}.forward takes "
                f"{', '.join(p.name for p in _parameters(module))}"
            )
    unknown = [name for name in required if name not in shapes]
    dtype = next((t.dtype for t in module.parameters() if t.is_floating_point()), torch.float32)

    def feed(made: Mapping[str, tuple[int, ...]], how: str) -> Feed:
        rng = np.random.default_rng(seed)
        arrays = {
            name: to_tensor(drawn(rng, name, spelled(dtype), shape), _device(module)) for name, shape in made.items()
        }
        shown = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in made.items())
        return Feed(_bound(module, (), arrays), f"generated, seed {seed}: {shown}{how}")

    if not unknown:
        yield feed(shapes, "")
        return
    guess = _guess(module)
    if len(unknown) > 1 or guess is None:
        raise CannotRunError(
            f"{type(module).__name__}.forward takes {', '.join(required)}, whose shapes a module does not say; "
            "give inputs=(x, ...), --inputs or --shape"
        )
    path, channels, axes = guess
    for extent in _EXTENTS if axes else _EXTENTS[:1]:
        shape = (batch, channels, *[extent] * axes)
        yield feed({**shapes, unknown[0]: shape}, f" (shape guessed from {path or type(module).__name__})")


def _guess(module: nn.Module) -> tuple[str, int, int] | None:
    """Return path, channels and number of spatial axes of what looks like the first layer."""
    for path, inner in module.named_modules():
        if any(map(nn.parameter.is_lazy, inner.parameters(recurse=False))):
            return None
        if isinstance(inner, _FIRST):
            return path, inner.in_channels, len(inner.kernel_size)
        if isinstance(inner, nn.Linear):
            return path, inner.in_features, 0
        if isinstance(inner, (nn.BatchNorm2d, nn.BatchNorm3d)):
            return path, inner.num_features, 2 if isinstance(inner, nn.BatchNorm2d) else 3
    return None
