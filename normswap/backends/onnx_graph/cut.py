"""Cut out the operators that compute a value, as a model of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from normswap.backends.onnx_graph.graph.constants import constant
from normswap.backends.onnx_graph.graph.model import read_tensor
from normswap.backends.onnx_graph.graph.nodes import graphs_in
from normswap.backends.onnx_graph.graph.scopes import Scope

__all__ = ["CutError", "cut_out"]


class CutError(Exception):
    """The value cannot be computed from the given inputs and constants alone."""


def cut_out(scope: Scope, outputs: Sequence[str], inputs: Mapping[str, tuple[str, onnx.TypeProto]]) -> onnx.ModelProto:
    """Build a model that computes ``outputs`` of a scope from ``inputs``.

    Args:
        scope: Where the names live.
        outputs: Names to compute; the model's outputs are called ``out0``, ``out1``, ...
        inputs: By name in the scope, where the computation is cut: the name and type of the new input.

    Raises:
        CutError: If the outputs depend on anything but ``inputs`` and constants.
    """
    cutter = _Cutter(scope, inputs)
    for index, name in enumerate(outputs):
        cutter.graph.node.add(op_type="Identity", input=[cutter.use(scope, name)], output=[f"out{index}"])
        cutter.graph.output.add(name=f"out{index}").type.CopyFrom(onnx.TypeProto())
    for new_name, new_type in inputs.values():
        cutter.graph.input.add(name=new_name).type.CopyFrom(new_type)
    model = onnx.ModelProto(ir_version=max(scope.model.proto.ir_version, 8), graph=cutter.graph)
    for domain, version in scope.opsets.items():
        model.opset_import.add(domain=domain, version=version)
    model.functions.extend(scope.model.proto.functions)
    for entry in scope.model.proto.opset_import:
        if entry.domain not in scope.opsets and entry.domain not in ("", "ai.onnx"):
            model.opset_import.append(entry)
    return model


class _Cutter:
    """Collects nodes backwards from the outputs, every name made unique by the scope that defines it."""

    def __init__(self, scope: Scope, inputs: Mapping[str, tuple[str, onnx.TypeProto]]) -> None:
        self.graph = onnx.GraphProto(name="cut")
        self.stops = {}
        for name, (new_name, _) in inputs.items():
            found = scope.resolve(name)
            self.stops[id(found.scope), found.name] = new_name
        self.named: dict[tuple[int, str], str] = {}
        self.scopes: list[Scope] = []  # keeps ids alive

    def use(self, scope: Scope, name: str) -> str:
        """Make ``name`` available in the cut and return its new name."""
        if not name:
            return ""
        # Parts of the graph can be very deep, so the walk keeps a stack of its own.
        pending: list[tuple[Scope, str, bool]] = [(scope, name, False)]
        while pending:
            current, wanted, ready = pending.pop()
            found = current.resolve(wanted)
            key = (id(found.scope), found.name)
            if key in self.named or key in self.stops:
                continue
            if found.node is not None and self._stored(found.scope, found.name, found.node):
                continue
            if found.node is not None:
                if graphs_in(found.node):
                    raise CutError(f"{wanted} is computed by {found.node.op_type}")
                if not ready:
                    pending.append((current, wanted, True))
                    pending += [(found.scope, read, False) for read in found.node.input if read]
                    continue
            self._define(found.scope, found.name, found.node, found.tensor)
        return self._name(scope, name)

    def _stored(self, scope: Scope, name: str, node: onnx.NodeProto) -> bool:
        """Store what a Cast of constants gives as a tensor.

        ONNX Runtime leaves out a Cast of constants to half precision that it casts back, even unoptimized.
        """
        value = constant(scope, name) if node.op_type == "Cast" else None
        if value is None or self._is_cut(scope, node):
            return False
        self._define(scope, name, None, onnx.numpy_helper.from_array(value, name))
        return True

    def _is_cut(self, scope: Scope, node: onnx.NodeProto) -> bool:
        """Whether the computation of a node's inputs is cut somewhere, so that a constant is none any more."""
        pending = [(scope, read) for read in node.input if read]
        seen: set[tuple[int, str]] = set()
        while pending:
            place, name = pending.pop()
            found = place.resolve(name)
            key = (id(found.scope), found.name)
            if key in self.stops:
                return True
            if key not in seen and found.node is not None:
                seen.add(key)
                pending += [(found.scope, read) for read in found.node.input if read]
        return False

    def _name(self, scope: Scope, name: str) -> str:
        if not name:
            return ""
        found = scope.resolve(name)
        key = (id(found.scope), found.name)
        return self.stops.get(key) or self.named[key]

    def _define(self, scope: Scope, name: str, node: Any, tensor: Any) -> None:
        if node is None and tensor is None:
            raise CutError(f"it depends on {name!r}, which is known at run time only")
        if scope not in self.scopes:
            self.scopes.append(scope)
        prefix = f"s{self.scopes.index(scope)}."
        if tensor is not None:
            value = onnx.numpy_helper.from_array(read_tensor(scope.model, tensor), prefix + name)
            self.graph.initializer.append(value)
            self.named[id(scope), name] = prefix + name
            return
        copied = self.graph.node.add()
        copied.CopyFrom(node)
        copied.name = ""
        copied.input[:] = [self._name(scope, read) for read in node.input]
        copied.output[:] = [prefix + out if out else "" for out in node.output]
        del copied.attribute[:]
        copied.attribute.extend(filled for attribute in node.attribute if (filled := scope.fill(attribute)) is not None)
        for out in node.output:
            if out:
                self.named[id(scope), out] = prefix + out
