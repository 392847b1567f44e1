"""SwappedNorm, the module that stands where a BatchNorm stood, and LAYOUTS, which BatchNorm classes are understood."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _WrappedHook
from torch.nn.utils import parametrize

from normswap.norms import Norm, make_norm

__all__ = ["LAYOUTS", "Layout", "SwappedNorm", "layout_of"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Layout:
    """Where a class of modules keeps what BatchNorm computes with, and what it does besides.

    Attributes:
        weight: Attribute that holds gamma, shape (C,), or None.
        bias: Attribute that holds beta, shape (C,), or None.
        running_mean: Attribute that holds the stored mean, shape (C,), or None.
        running_var: Attribute that holds the stored variance, shape (C,), or None.
        eps: Attribute that holds eps.
        after: Child modules that are applied, in this order, to what was normalized (an activation, say).
    """

    weight: str = "weight"
    bias: str = "bias"
    running_mean: str = "running_mean"
    running_var: str = "running_var"
    eps: str = "eps"
    after: tuple[str, ...] = ()


# By the class that defines ``forward``: its subclasses that leave it alone are understood with it. To teach normswap
# a class of your own, add it here; whether the entry is right is then checked, as the original runs its own code:
#     normswap.nn.LAYOUTS[timm.layers.BatchNormAct2d] = normswap.nn.Layout(after=("drop", "act"))
LAYOUTS: dict[type[nn.Module], Layout] = {
    _BatchNorm: Layout(),
    nn.SyncBatchNorm: Layout(),
}


def layout_of(module: nn.Module) -> Layout | None:
    """Return how to read a module, by the class that defines its forward; None if LAYOUTS has no entry for it."""
    if "forward" in vars(module):
        return None
    defining = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    return LAYOUTS.get(defining)


class SwappedNorm(nn.Module):
    r"""Normalizes as one target says, in training and in evaluation alike.

    .. math:: y = (x - \mathrm{mean}) / \sqrt{\mathrm{var} + \mathrm{eps}} \cdot \mathrm{weight} + \mathrm{bias}

    Statistics are those of the target, the variance biased (divided by the count). A BatchNorm's checkpoint loads
    into it strictly: entries for statistics that it has no use for are passed over.

    Args:
        to: The target, by its name in normswap.NORMS where that says it all, or a Norm, such as
            ``normswap.norms.Blend(16)``.
        num_features: Number of channels C.
        eps: Added to the variance, in units of x squared.
        affine: Whether to have weight and bias.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        (N, C, \*spatial), whatever memory format, to the same.

    Attributes:
        weight: gamma, shape (C,), or None.
        bias: beta, shape (C,), or None.
        running_mean: Stored mean, shape (C,); None where the target takes none.
        running_var: Stored variance, shape (C,); None where the target takes none.
        after: Child modules applied to what was normalized.
        known_as: What checkpoints of the original call its parameters and statistics, where that is not as here.

    Raises:
        ValueError: If the input has another number of channels, or no spatial axis where ``to`` needs one.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: torch.Tensor | None
    running_var: torch.Tensor | None

    def __init__(
        self,
        to: str | Norm,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm = make_norm(to) if isinstance(to, str) else to
        self.num_features = num_features
        self.eps = eps
        self.after: tuple[str, ...] = ()
        self.known_as: dict[str, str] = {}
        for name, value in (("weight", torch.ones), ("bias", torch.zeros)):
            made = nn.Parameter(value(num_features, device=device, dtype=dtype)) if affine else None
            self.register_parameter(name, made)
        for name, value in (("running_mean", torch.zeros), ("running_var", torch.ones)):
            stored = value(num_features, device=device, dtype=dtype) if self.norm.formula.reads_stored else None
            self.register_buffer(name, stored)

    @classmethod
    def in_place_of(cls, source: nn.Module, norm: Norm, num_features: int) -> SwappedNorm:
        """Make the module that takes the place of ``source``: its Parameters, hooks and children are the same objects.

        Args:
            source: A BatchNorm of a class in LAYOUTS; it is not changed, and of no use afterwards.
            norm: The target.
            num_features: Number of channels C.
        """
        layout = layout_of(source)
        assert layout is not None, "the plan blocks others"
        swapped = cls(norm, num_features, float(getattr(source, layout.eps)), affine=False, device="meta")
        for name in ("weight", "bias"):
            _take_over(swapped, name, source, getattr(layout, name))
        for name in ("running_mean", "running_var"):
            theirs = getattr(layout, name)
            stored = getattr(source, theirs) if norm.formula.reads_stored else None
            swapped.register_buffer(name, stored, persistent=theirs not in source._non_persistent_buffers_set)
        named = {name: getattr(layout, name) for name in ("weight", "bias", "running_mean", "running_var")}
        swapped.known_as = {name: theirs for name, theirs in named.items() if theirs != name}
        swapped.after = layout.after
        for name in layout.after:
            swapped.add_module(name, source.get_submodule(name))
        for name, hooks in vars(source).items():
            if "_hook" in name:  # the same dictionaries, so that handles can still remove them
                setattr(swapped, name, hooks)
        for hook in source._load_state_dict_pre_hooks.values():
            if isinstance(hook, _WrappedHook) and hook.with_module:  # torch's, which calls it with the module it knows
                hook.module = weakref.ref(swapped)
        swapped.training = source.training
        return swapped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize x, then apply what comes after."""
        y = _normalized(self.norm, x, self.weight, self.bias, self.running_mean, self.running_var, self.eps)
        for name in self.after:
            y = getattr(self, name)(y)
        return y

    def extra_repr(self) -> str:
        """Show the target with its parameters, the number of channels and eps."""
        given = "".join(f", {name}={value}" for name, value in self.norm.parameters.items())
        return f"{self.norm.name}{given}, {self.num_features}, eps={self.eps}"

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name, theirs in self.known_as.items():
            if f"{prefix}{theirs}" in state_dict:  # torch gives a copy of the caller's mapping
                state_dict[f"{prefix}{name}"] = state_dict.pop(f"{prefix}{theirs}")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        statistics = {f"{prefix}{name}" for name in _STATISTICS}
        unexpected_keys[:] = [key for key in unexpected_keys if key not in statistics]


@fx.wrap  # one node for symbolic_trace, which could not follow a kernel that looks at shapes
def _normalized(norm: Norm, *values: Any) -> torch.Tensor:
    y: torch.Tensor = norm.kernel(*values)
    return y


def _take_over(swapped: SwappedNorm, name: str, source: nn.Module, theirs: str) -> None:
    """Give ``swapped`` a parameter of another module, the same object, with its parametrization if it has one."""
    if parametrize.is_parametrized(source, theirs):
        lists = source.parametrizations
        assert isinstance(lists, nn.ModuleDict), "that is what is_parametrized looks into"
        swapped.register_parameter(name, nn.Parameter(torch.empty(0)))
        parametrize.register_parametrization(swapped, name, nn.Identity(), unsafe=True)
        made = swapped.parametrizations
        assert isinstance(made, nn.ModuleDict), "the line above made it"
        made[name] = lists[theirs]
        made.training = lists.training
        return
    value = getattr(source, theirs, None)
    if value is None or isinstance(value, nn.Parameter):
        swapped.register_parameter(name, value)
    else:  # a tensor that is no Parameter: a buffer, or frozen by hand
        del swapped._parameters[name]
        persistent = theirs in source._buffers and theirs not in source._non_persistent_buffers_set
        swapped.register_buffer(name, value, persistent=persistent)
