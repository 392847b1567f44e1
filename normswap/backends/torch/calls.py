"""OPERATORS: which operators of torch are BatchNorm, and what a call of one says.

A new source operator is one entry; the arguments are read by the names that torch's own schemas give them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["OPERATORS", "BatchNormCall", "Operator", "operator_name", "read_call", "returned_statistics"]


@dataclass(frozen=True)
class Operator:
    """How one of torch's operators says what it normalizes with.

    Attributes:
        trains: Whether it uses the statistics of the batch; None where its ``training`` argument says.
        many: Whether it returns the normalized tensor first among others.
    """

    trains: bool | None = None
    many: bool = True


OPERATORS: dict[str, Operator] = {  # by name, without namespace and overload
    "batch_norm": Operator(many=False),
    "native_batch_norm": Operator(),
    "cudnn_batch_norm": Operator(),
    "miopen_batch_norm": Operator(),
    "_native_batch_norm_legit": Operator(),
    "_native_batch_norm_legit_functional": Operator(),
    "_native_batch_norm_legit_no_training": Operator(trains=False),
    "_batch_norm_with_update": Operator(trains=True),
    "_batch_norm_with_update_functional": Operator(trains=True),
    "_batch_norm_no_update": Operator(trains=False),
    "_batch_norm_impl_index": Operator(),
}
# The built-in functions of torch.* have no signature to read.
_POSITIONAL = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


@dataclass(frozen=True, eq=False)
class BatchNormCall:
    """The arguments of one call; tensors, or graph nodes that stand for them.

    Attributes:
        x: What is normalized.
        weight: gamma, or None.
        bias: beta, or None.
        running_mean: Stored mean, or None.
        running_var: Stored variance, or None.
        trains: Whether the statistics of the batch are used.
        eps: Added to the variance.
        many: Whether the normalized tensor is the first of several results.
    """

    x: Any
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    trains: bool
    eps: float
    many: bool


def operator_name(target: Any) -> str | None:
    """Return the name of a BatchNorm operator, whatever form it is called in; None for any other."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.rpartition("::")[2]
    elif isinstance(target, torch._ops.OpOverloadPacket):
        name = target._qualified_op_name.rpartition("::")[2]
    elif target is torch.nn.functional.batch_norm:
        name = "batch_norm"
    elif inspect.isbuiltin(target):
        name = target.__name__
    else:
        return None
    return name if name in OPERATORS else None


def read_call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> BatchNormCall:
    """Bind the arguments of a call of one of OPERATORS."""
    name = operator_name(target)
    assert name is not None, "the caller asked operator_name"
    operator = OPERATORS[name]
    given = {**dict(zip(_names(target), args, strict=False)), **kwargs}
    trains = operator.trains
    if trains is None:
        trains = bool(given.get("training", given.get("train", False)))
    return BatchNormCall(
        x=given["input"],
        weight=given.get("weight"),
        bias=given.get("bias"),
        running_mean=given.get("running_mean"),
        running_var=given.get("running_var"),
        trains=trains,
        eps=float(given.get("eps", given.get("epsilon", 1e-5))),
        many=operator.many,
    )


def returned_statistics(target: Any) -> dict[int, str]:
    """Say at which places an operator returns the updated ``running_mean`` and ``running_var``; most write in place."""
    if not isinstance(target, torch._ops.OpOverload):
        return {}
    names = {"running_mean_out": "running_mean", "running_var_out": "running_var"}
    return {index: names[value.name] for index, value in enumerate(target._schema.returns) if value.name in names}


def _names(target: Callable[..., Any]) -> Sequence[str]:
    if isinstance(target, torch._ops.OpOverloadPacket):
        target = target.default
    if isinstance(target, torch._ops.OpOverload):
        return [argument.name for argument in target._schema.arguments]
    if target is torch.nn.functional.batch_norm:
        return list(inspect.signature(target).parameters)
    return _POSITIONAL
