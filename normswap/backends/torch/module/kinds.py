"""Which modules of a tree are BatchNorm, and why one of them may not be understood."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from normswap.nn import SwappedNorm, layout_of

__all__ = ["is_batch_norm", "obstacle"]

_HELD = ("weight", "bias", "running_mean", "running_var")


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is BatchNorm itself, not one that holds or calls a BatchNorm."""
    if isinstance(module, SwappedNorm):
        return False
    if isinstance(module, _BatchNorm) or layout_of(module) is not None:
        return True
    name = getattr(module, "original_name", type(module).__name__)
    return "batchnorm" in str(name).lower() and hasattr(module, "running_mean")


def obstacle(module: nn.Module) -> str:
    """Say why no target can replace a BatchNorm module, or nothing."""
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "it is TorchScript, whose code is fixed"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return "it is not materialized: run the model once, so that its number of channels is known"
    if "forward" in vars(module) or cls.__call__ is not nn.Module.__call__:
        return "its forward was replaced on the object, so that what it computes is not known"
    layout = layout_of(module)
    if layout is None:
        return (
            f"its class {cls.__name__} has a forward of its own, so that what it adds to BatchNorm would be lost; "
            f"normswap.nn.LAYOUTS[{cls.__name__}] can say what that is"
        )
    tensors = {name: getattr(module, getattr(layout, name), None) for name in _HELD}
    if any(tensor is not None and tensor.is_meta for tensor in tensors.values()):
        return "its parameters are on the meta device, without values; load the weights first"
    channels = {tuple(tensor.shape) for tensor in tensors.values() if tensor is not None}
    if any(len(shape) != 1 for shape in channels) or len(channels) > 1:
        return f"its parameters have shapes {sorted(channels)}, expected one (C,) for all"
    for name in ("weight", "bias"):
        tensor = tensors[name]
        if tensor is not None and not torch.isfinite(tensor).all():
            return f"its {name} holds NaN or infinity; mend the weights first"
    eps = getattr(module, layout.eps)
    if not 0 <= eps < float("inf"):
        return f"its eps is {eps!r}, expected a number of at least 0"
    ours = {getattr(layout, name) for name in _HELD} | {"num_batches_tracked"} | set(layout.after)
    if parametrize.is_parametrized(module):
        ours.add("parametrizations")
    held = {name.partition(".")[0] for name in module.state_dict()} - ours
    held |= {name for name, child in module._modules.items() if child is not None} - ours
    if held:
        return f"it also holds {', '.join(sorted(held))}, which would be lost"
    return ""
