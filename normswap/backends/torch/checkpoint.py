"""Checkpoints: state dicts of BatchNorm models turned into those of the converted ones, without building a model."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from normswap.errors import ModelReadError, ModelWriteError, NormswapError, first_line
from normswap.layer import Array, NormLayer
from normswap.norms import Norm, make_norm
from normswap.plan import Plan, make_plan
from normswap.report import Check, Report

if TYPE_CHECKING:
    import torch

__all__ = [
    "SUFFIXES",
    "compare_checkpoints",
    "convert_state_dict",
    "layers_in",
    "plan_of",
    "read_checkpoint",
    "without_statistics",
    "write_checkpoint",
]

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "generator", "params")

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
    target needs: nothing for ``instance`` and ``batch-stat``, both for ``population`` and ``blend``. Layers that the
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
    gone = _idle(plan)
    kept = OrderedDict((name, value) for name, value in state_dict.items() if name not in gone)
    if hasattr(state_dict, "_metadata"):  # the versions of its modules, which their loading may ask for
        kept._metadata = state_dict._metadata  # type: ignore[attr-defined]  # torch keeps them there
    return kept


def _idle(plan: Plan) -> set[str]:
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
    return f"{path}.{name}" if path else name


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a state dict; pickles are read for tensors alone, and nothing in them is run.

    A checkpoint that holds the state dict beside other things, under a name such as ``state_dict``, is looked into.

    Raises:
        ModelReadError: If the file is missing or damaged, would run code, or holds no state dict.
    """
    path = Path(path)
    if not path.exists():
        raise ModelReadError(f"{path}: no such file")
    with _needing(path, ModelReadError):
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return _state_dict(_read_pickle(path), path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_dir():
        raise ModelReadError(f"{path}: expected a .safetensors file: is a directory")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelReadError(f"{path}: expected a .safetensors file: {_reason(error)}") from error


def _read_pickle(path: Path) -> Any:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is raised below
            # Tensors of a file in today's format are mapped, not read, until somebody looks at them.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # The message itself explains how to have the code run.
        said = _reason(error.__context__ or error)
        if named := re.search(r"GLOBAL ([\w.]+)", said):
            raise ModelReadError(
                f"{path}: holds more than tensors, and nothing in it is executed ({named[1]} would be): "
                "save model.state_dict() instead"
            ) from error
        raise ModelReadError(f"{path}: expected a checkpoint that torch.save wrote: {said}") from error
    except Exception as error:  # the reader has no common exception for damaged files
        if "TorchScript" in str(error):
            raise ModelReadError(
                f"{path}: is a TorchScript archive, which holds code: save model.state_dict() of the nn.Module instead"
            ) from error
        raise ModelReadError(f"{path}: expected a checkpoint that torch.save wrote: {_reason(error)}") from error


def write_checkpoint(state_dict: Mapping[str, Any], path: Path) -> None:
    """Write a state dict, as its suffix says; the caller sees to it that ``path`` may be written.

    Raises:
        ModelWriteError: If it cannot be written, or the format has no place for something in it.
    """
    with _needing(path, ModelWriteError):
        import torch

        try:
            if path.suffix != ".safetensors":
                torch.save(state_dict if isinstance(state_dict, dict) else dict(state_dict), path)
                return
            from safetensors.torch import save_file

            foreign = [name for name, value in state_dict.items() if not isinstance(value, torch.Tensor)]
            if foreign:
                raise ModelWriteError(
                    f"{path.name}: {foreign[0]} is no tensor, which .safetensors has no place for; write a .pth file"
                )
            # Tied tensors are written once for each name, since a file of this format shares none.
            tensors = {name: value.detach().clone().contiguous() for name, value in state_dict.items()}
            path.touch()
            mode = path.stat().st_mode
            save_file(tensors, path, metadata={"format": "pt"})
            path.chmod(mode)  # as any file here: the library leaves one that nobody else may read
        except (ModelWriteError, OSError, ImportError):
            raise
        except Exception as error:  # the writers have no common exception, for a full disk either
            raise ModelWriteError(f"{path.name}: cannot be written: {_reason(error)}") from error


@contextmanager
def _needing(path: Path, error_class: type[NormswapError]) -> Iterator[None]:
    """Say which package is missing, if one is."""
    try:
        yield
    except ImportError as error:
        raise error_class(f"{path}: this takes {error.name}; pip install {error.name}") from error


def _state_dict(found: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    def is_state_dict(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and bool(value)
            and all(isinstance(key, str) for key in value)
            and any(isinstance(item, torch.Tensor) for item in value.values())
        )

    nested = [name for name in _NESTED if isinstance(found, Mapping) and is_state_dict(found.get(name))]
    if nested and not any(isinstance(value, torch.Tensor) for value in found.values()):
        if len(nested) > 1:
            raise ModelReadError(
                f"{path}: holds {len(nested)} state dicts ({', '.join(nested)}); save the one that is meant by itself"
            )
        found = found[nested[0]]
    if not is_state_dict(found):
        inside = (
            f"a mapping of {', '.join(map(str, list(found)[:5])) or 'nothing'}"
            if isinstance(found, Mapping)
            else type(found).__name__
        )
        raise ModelReadError(
            f"{path}: expected a state dict, or one under a name such as {', '.join(_NESTED[:3])}, found {inside}"
        )
    return found if isinstance(found, dict) else dict(found)


def _reason(error: BaseException) -> str:
    """Shorten what a reader or writer said to what a person can use."""
    line = first_line(error, "it ends too early" if isinstance(error, EOFError) else type(error).__name__)
    return line.partition(". This is an internal miniz error")[0]


def compare_checkpoints(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], plan: Plan) -> Report:
    """Hold a converted state dict to its original: every tensor but the statistics that the target drops, bit for bit.

    Args:
        before: The original's state dict.
        after: What is claimed to be the conversion's.
        plan: The target and the layers.
    """
    may_go = _idle(plan)
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
        said = f"{len(same)} tensors are identical, {gone} statistics of {len(plan.layers)} layers are gone"
        checks = [Check("structure", "tensors", ok=True, detail=said)]
    return Report(
        target=plan.norm.name,
        meaning=plan.norm.meaning,
        parameters=plan.norm.parameters,
        planned=tuple(layer.name for layer in plan.layers),
        checks=tuple(checks),
        notes=(
            "a checkpoint holds no operators, so that nothing could be run: normswap verify package.module:factory "
            "--weights BEFORE AFTER proves the model",
            "state dicts alone are compared and written: what a training checkpoint holds beside is left behind",
        ),
        inputs="none: a checkpoint cannot be run",
        left=plan.left,
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
