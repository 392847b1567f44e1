"""Constants: values that depend on no input, however they are written, and what they are."""

from __future__ import annotations

import math

import numpy as np
import onnx

from normswap.backends.onnx_graph.graph.model import read_tensor
from normswap.backends.onnx_graph.graph.nodes import graphs_in
from normswap.backends.onnx_graph.graph.scopes import Origin, Scope
from normswap.backends.onnx_graph.graph.shapes import dims_of
from normswap.errors import ModelReadError
from normswap.layer import Array

__all__ = ["RANDOM", "constant", "is_constant"]

_MOST_ELEMENTS = 1 << 26  # of a value on the way to a parameter

# Operators whose output is not a function of their inputs.
RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Dropout",
    }
)


def is_constant(scope: Scope, name: str) -> bool:
    """Whether the value depends on no input and on no random operator."""
    origin = scope.resolve(name)
    # What it is computed from comes first; the row may be longer than Python's stack is deep.
    pending = [origin]
    while origin.name not in origin.scope.is_constant:
        current = pending.pop()
        reads = [] if current.node is None else [current.scope.resolve(read) for read in current.node.input if read]
        unknown = [read for read in reads if read.name not in read.scope.is_constant]
        if _may_be_constant(current) and unknown:
            pending += [current, *unknown]
            continue
        current.scope.is_constant[current.name] = _may_be_constant(current) and all(
            read.scope.is_constant[read.name] for read in reads
        )
    return origin.scope.is_constant[origin.name]


def _may_be_constant(origin: Origin) -> bool:
    """Whether the value is constant if all that it is computed from is."""
    if origin.node is None:
        return origin.kind == "tensor"
    known = origin.node.domain in ("", "ai.onnx") and origin.node.op_type not in RANDOM
    return known and not graphs_in(origin.node)


def constant(scope: Scope, name: str) -> Array | None:
    """Evaluate a value that depends on constants alone; None where it does not."""
    origin = scope.resolve(name)
    if not is_constant(scope, name):
        return None
    pending = [origin]
    while origin.name not in origin.scope.constants:
        current = pending.pop()
        reads = [] if current.node is None else [current.scope.resolve(read) for read in current.node.input if read]
        unknown = [read for read in reads if read.name not in read.scope.constants]
        if unknown:
            pending += [current, *unknown]
        else:
            current.scope.constants[current.name] = _evaluate(current)
    return origin.scope.constants[origin.name]


def _evaluate(origin: Origin) -> Array | None:
    """Evaluate a tensor, or a node all of whose inputs have been."""
    scope = origin.scope
    if origin.tensor is not None:
        return read_tensor(scope.model, origin.tensor)
    assert origin.node is not None, "a constant is a tensor or computed from tensors"
    node = onnx.NodeProto()
    node.CopyFrom(origin.node)
    del node.attribute[:]
    node.attribute.extend(
        filled for attribute in origin.node.attribute if (filled := scope.fill(attribute)) is not None
    )
    values = {read: _known(scope, read) for read in node.input if read}
    if node.op_type == "Identity":
        return values.get(node.input[0]) if node.input else None
    if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
        return read_tensor(scope.model, node.attribute[0].t)
    if any(value is None for value in values.values()) or _is_huge(scope, node):
        return None
    from onnx.reference import ReferenceEvaluator  # slow to load, and few models need it

    try:
        with np.errstate(all="ignore"):  # a parameter may be computed by way of infinity
            results = list(ReferenceEvaluator(node, opsets=dict(scope.opsets)).run(None, values))
        return np.asarray(results[list(node.output).index(origin.name)])
    except ModelReadError:
        raise
    except Exception:  # whatever the reference implementation cannot do is known at run time only
        return None


def _is_huge(scope: Scope, node: onnx.NodeProto) -> bool:
    """Whether a node makes more of a few numbers than a parameter can be computed from, as ConstantOfShape can."""
    shapes = (dims_of(scope.value_type(name)) or () for name in node.output if name)
    return any(math.prod(dim for dim in shape if isinstance(dim, int)) > _MOST_ELEMENTS for shape in shapes)


def _known(scope: Scope, name: str) -> Array | None:
    origin = scope.resolve(name)
    return origin.scope.constants[origin.name]
