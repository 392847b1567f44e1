"""Norm: all that a target is: its meaning, its formula, the layers that it refuses, and the forms that it has."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normswap.layer import Floats, NormLayer, Role
from normswap.norms.formula import Formula, Statistics
from normswap.norms.mistake import Mistake
from normswap.norms.onnx import OnnxOps
from normswap.norms.parameters import Parameter

if TYPE_CHECKING:
    from normswap.norms.torch import Kernel

__all__ = ["Form", "Norm", "by_name", "no_stored_statistics", "single_elements"]


@dataclass(frozen=True)
class Form:
    """One way of writing a target as ONNX operators; all forms of a target have the same meaning.

    Attributes:
        name: As reports and the table of runtimes have it.
        emit: Writes operators that read ``ops.x`` and write ``ops.y``.
        dtypes: Types of the layer's input that the form has operators for, itself or between Casts.
        needs_channels: Whether the number of channels must be known.
    """

    name: str
    emit: Callable[[OnnxOps], None]
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16", "float64")
    needs_channels: bool = False

    def takes(self, layer: NormLayer) -> bool:
        """Whether the form can be written for a layer."""
        return layer.dtype in self.dtypes and not (self.needs_channels and layer.num_features is None)


def by_name(*forms: Form) -> Mapping[str, Form]:
    """Return forms in their order, by their names."""
    return {form.name: form for form in forms}


class Norm(Statistics):
    """A target of the conversion: one meaning of a trained BatchNorm.

    A subclass in one file of ``normswap.norms`` and one entry in NORMS make a target; nothing else knows of it.

    Attributes:
        name: As given to ``--to``.
        meaning: What the result equals, as one phrase for people.
        equals: The role that has this meaning already, None where no role has.
        formula: Which statistics it normalizes with.
        takes: The parameters that it has besides its name: attributes of the same names, arguments when it is made.
        forms: How it can be written in ONNX, by name, the default first; the last takes every layer.
    """

    name: str
    meaning: str
    equals: Role | None = None
    formula: Formula
    takes: tuple[Parameter, ...] = ()
    forms: Mapping[str, Form]
    _kernel: Kernel | None = None

    @abstractmethod
    def refuse(self, layer: NormLayer) -> str | None:
        """Say why this target has no meaning for the layer, or None where it has one."""

    @abstractmethod
    def torch_kernel(self) -> Kernel:
        """Make what computes the target in torch, in a module and as operators of a graph."""

    @property
    def kernel(self) -> Kernel:
        """What computes the target in torch, made once: a module asks for it at each forward."""
        if self._kernel is not None:
            return self._kernel
        import torch

        kernel = self.torch_kernel()
        if not torch.compiler.is_compiling():  # a compiler traces the making, and could not keep what comes of it
            self._kernel = kernel
        return kernel

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the kernel, which holds functions that cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name != "_kernel"}

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of its parameters, by name."""
        return {parameter.name: getattr(self, parameter.name) for parameter in self.takes}

    @property
    def mistakes(self) -> Mapping[str, Mistake]:
        """Wrong normalizations that happen to this target alone, by what follows "looks as if"."""
        return {}

    @property
    def lookalikes(self) -> tuple[Norm, ...]:
        """Targets with parameters that it is easily taken for."""
        return ()

    def form_of(self, layer: NormLayer) -> Form:
        """Return the form that a layer is written in where nothing else is asked for."""
        return next(form for form in self.forms.values() if form.takes(layer))

    def __fx_create_arg__(self, tracer: Any) -> Any:
        """Stand in a graph of torch.fx as a call that makes it, so that a converted module can be traced."""
        return tracer.create_node("call_function", type(self), (), self.parameters)

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute the mean and the variance of the formula."""
        return self.formula.moments(x, layer)

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute mean and biased variance of x over the axes of the formula."""
        return self.formula.own_moments(x, layer)

    def share(self, shape: tuple[int, ...]) -> float:
        """Return the weight of x's own statistics."""
        return self.formula.share(shape)

    def count(self, shape: tuple[int, ...]) -> int:
        """Count the elements that one statistic of x is computed over; 0 where stored ones alone are used."""
        return self.formula.count(shape)


def no_stored_statistics(layer: NormLayer) -> str | None:
    """Say why a layer has no stored statistics that were ever its meaning, or None where it has."""
    if layer.role == "instance":
        return "it is an InstanceNorm written with BatchNorm; its running statistics were never its meaning"
    if layer.role == "batch-stat":
        return "its statistics are computed in the graph and none are stored"
    if layer.running_mean is None or layer.running_var is None:
        return "its running statistics are not stored in the model but computed or given at run time"
    return None


def single_elements(layer: NormLayer) -> str | None:
    """Say that a sample has one element of each channel, of variance 0 whatever it is, or None where it has more."""
    if layer.shape is None:
        return None
    if len(layer.shape) < 3:
        return f"its input has rank {len(layer.shape)}, one value per sample and channel"
    spatial = [dim for dim in layer.shape[2:] if isinstance(dim, int)]
    if len(spatial) == len(layer.shape) - 2 and math.prod(spatial) == 1:
        return "its input has one spatial element per sample and channel"
    return None
