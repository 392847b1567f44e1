"""Constants: values that depend on no input, however they are written, and what they are."""

from __future__ import annotations

import numpy as np
import onnx

from normswap.backends.onnx_graph.model import read_tensor
from normswap.backends.onnx_graph.scopes import Scope, graphs_in
from normswap.errors import ModelReadError
from normswap.layer import Array

__all__ = ["RANDOM", "constant", "is_constant"]

# Operators whose output is no function of their inputs.
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
    seen: set[tuple[int, str]] = set()
    pending: list[tuple[Scope, str]] = [(scope, name)]
    while pending:
        place, current = pending.pop()
        origin = place.resolve(current)
        if (id(origin.scope), origin.name) in seen or origin.kind == "tensor":
            continue
        seen.add((id(origin.scope), origin.name))
        if origin.node is None or origin.node.op_type in RANDOM or graphs_in(origin.node):
            return False
        if origin.node.domain not in ("", "ai.onnx"):
            return False
        pending += [(origin.scope, read) for read in origin.node.input if read]
    return True


def constant(scope: Scope, name: str) -> Array | None:
    """Evaluate a value that depends on constants alone; None where it does not."""
    if name not in scope.constants:
        scope.constants[name] = _evaluate(scope, name) if is_constant(scope, name) else None
    return scope.constants[name]


def _evaluate(scope: Scope, name: str) -> Array | None:
    origin = scope.resolve(name)
    if origin.tensor is not None:
        return read_tensor(scope.model, origin.tensor)
    if origin.scope is not scope:
        return constant(origin.scope, origin.name)
    assert origin.node is not None
    node = onnx.NodeProto()
    node.CopyFrom(origin.node)
    del node.attribute[:]
    node.attribute.extend(
        filled for attribute in origin.node.attribute if (filled := scope.fill(attribute)) is not None
    )
    if node.op_type == "Identity":
        return constant(scope, node.input[0])
    if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
        return read_tensor(scope.model, node.attribute[0].t)
    feed = {}
    for read in node.input:
        value = constant(scope, read) if read else None
        if read and value is None:
            return None
        feed[read] = value
    from onnx.reference import ReferenceEvaluator  # slow to load, and few models need it

    try:
        evaluator = ReferenceEvaluator(node, opsets=dict(scope.opsets))
        values = evaluator.run(None, feed)
    except ModelReadError:
        raise
    except Exception:  # whatever the reference implementation cannot do is known at run time only
        return None
    return np.asarray(list(values)[list(node.output).index(name)])
