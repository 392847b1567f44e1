"""Hold a converted state dict to its original, tensor for tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normswap.backends.torch.checkpoint.convert import idle_statistics
from normswap.plan import Plan
from normswap.report import Check, Report

if TYPE_CHECKING:
    import torch

__all__ = ["compare_checkpoints"]


def compare_checkpoints(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], plan: Plan) -> Report:
    """Hold a converted state dict to its original: every tensor but the statistics that the target drops, bit for bit.

    Args:
        before: The original's state dict.
        after: What is claimed to be the conversion's.
        plan: The target and the layers.
    """
    may_go = idle_statistics(plan)
    differences = [f"{name} is gone" for name in before if name not in after and name not in may_go]
    differences += [f"{name} is new" for name in after if name not in before]
    differences += [
        f"{name} is still there, which the converted model has no place for" for name in sorted(may_go & set(after))
    ]
    same = [name for name in before if name in after]
    differences += [f"{name} has other values" for name in same if not _identical(before[name], after[name])]
    checks = [Check("structure", "tensors", ok=False, detail=difference) for difference in differences]
    if not differences:
        gone = len(may_go & set(before))
        summary = f"{len(same)} tensors are identical, {gone} statistics of {len(plan.layers)} layers are gone"
        checks = [Check("structure", "tensors", ok=True, detail=summary)]
    return Report.for_plan(
        plan,
        checks,
        notes=(
            "a checkpoint holds no operators, so that nothing could be run: normswap verify package.module:factory "
            "--weights BEFORE AFTER proves the model",
            "state dicts alone are compared and written: everything else in a training checkpoint is left behind",
        ),
        inputs="none: a checkpoint cannot be run",
        needed=("structure",),
    )


def _identical(one: Any, other: Any) -> bool:
    """Whether two values are the same, tensors bit for bit, within the containers of a module's extra state too."""
    import torch

    from normswap.backends.torch.tensors import same_bits

    pending, seen = [(one, other)], set()
    while pending:
        pair = pending.pop()
        if tuple(map(id, pair)) in seen:  # a pickle can hold one list in very many places
            continue
        seen.add(tuple(map(id, pair)))
        left, right = pair
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            alike = (left.dtype, left.shape, left.layout) == (right.dtype, right.shape, right.layout)
            if not alike or not same_bits(left, right):
                return False
        elif type(left) is not type(right):
            return False
        elif isinstance(left, Mapping):
            if left.keys() != right.keys():
                return False
            pending += [(left[key], right[key]) for key in left]
        elif isinstance(left, (list, tuple)):
            if len(left) != len(right):
                return False
            pending += zip(left, right, strict=True)
        elif not np.all(left == right):
            return False
    return True
