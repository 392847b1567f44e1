"""Checkpoints: state dicts of BatchNorm models turned into those of the converted ones, without building a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from normswap.layer import Array, NormLayer
from normswap.norms import Norm, make_norm
from normswap.plan import Plan, make_plan

if TYPE_CHECKING:
    pass

__all__ = ["convert_state_dict", "idle_statistics", "layers_in", "plan_of", "without_statistics"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Value = TypeVar("Value")


def convert_state_dict(
    state_dict: Mapping[str, Value],
    to: str | Norm,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    **parameters: Any,
) -> dict[str, Value]:
    """Turn the state dict of a model with BatchNorm into that of its conversion; values are the same objects.

    A BatchNorm shows itself by a ``running_mean`` and a ``running_var``. The converted module keeps of them what its
    target needs: both where it uses the stored statistics, else nothing. Layers that the
    model's conversion leaves as they are (refused, or no BatchNorm at all, such as an InstanceNorm that tracks
    statistics) look the same in a state dict: name them in ``skip``.

    Args:
        state_dict: Tensors by name; ``module.`` in front of the names does no harm.
        to: The target: a key of normswap.NORMS, or a Norm.
        only: Globs; if any are given, only layers that match one are converted.
        skip: Globs; layers that match one are left as they are.
        parameters: Those of the target, by name, as for ``normswap.convert``; a state dict does not hold them.

    Raises:
        SelectionError: If the target is unknown or lacks a parameter, or a glob matches no layer.
        NothingToConvertError: If no layer is left to convert.

    Examples:
        >>> import numpy as np
        >>> weights = {"bn.weight": np.ones(2), "bn.running_mean": np.zeros(2), "bn.running_var": np.ones(2)}
        >>> list(convert_state_dict(weights, "instance"))
        ['bn.weight']
    """
    return without_statistics(state_dict, plan_of(state_dict, make_norm(to, **parameters), only=only, skip=skip))


def plan_of(state_dict: Mapping[str, Any], norm: Norm, *, only: Sequence[str] = (), skip: Sequence[str] = ()) -> Plan:
    """Decide which layers of a state dict are converted; arguments and exceptions as for ``convert_state_dict``."""
    planned = make_plan(norm, layers_in(state_dict), only=only, skip=skip)
    planned.raise_for_nothing()
    return planned


def without_statistics(state_dict: Mapping[str, Value], plan: Plan) -> dict[str, Value]:
    """Leave out what the planned layers have no use for once they are converted."""
    gone = idle_statistics(plan)
    kept = OrderedDict((name, value) for name, value in state_dict.items() if name not in gone)
    if hasattr(state_dict, "_metadata"):  # the versions of its modules, which their loading may ask for
        kept._metadata = state_dict._metadata  # type: ignore[attr-defined]  # torch keeps them there
    return kept


def idle_statistics(plan: Plan) -> set[str]:
    """Name the statistics that the target has no use for."""
    idle = _STATISTICS[2:] if plan.norm.formula.reads_stored else _STATISTICS
    return {_joined(layer.name, name) for layer in plan.layers for name in idle}


def layers_in(state_dict: Mapping[str, Any]) -> tuple[NormLayer, ...]:
    """List the layers of a state dict that hold running statistics, by their module paths.

    What such a layer computes, its eps and its shape, a state dict does not say.
    """
    paths = dict.fromkeys(name.rpartition(".")[0] for name in state_dict)
    return tuple(
        _layer(path, state_dict)
        for path in paths
        if all(_joined(path, name) in state_dict for name in ("running_mean", "running_var"))
    )


def _layer(path: str, state_dict: Mapping[str, Any]) -> NormLayer:
    def array(name: str) -> Array | None:
        value = state_dict.get(_joined(path, name))
        # NumPy has no bfloat16.
        return None if value is None else np.asarray(value.detach().double().cpu() if hasattr(value, "cpu") else value)

    mean = state_dict[_joined(path, "running_mean")]
    return NormLayer(
        name=path,
        role="unknown",
        num_features=int(np.prod(mean.shape)),
        eps=float("nan"),
        weight=array("weight"),
        bias=array("bias"),
        running_mean=array("running_mean"),
        running_var=array("running_var"),
        dtype=str(mean.dtype).removeprefix("torch."),
    )


def _joined(path: str, name: str) -> str:
    """Return the name of a tensor of a module."""
    return f"{path}.{name}" if path else name
