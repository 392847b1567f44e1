"""Site: where a layer stands in a graph, and which values it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import onnx

from normswap.backends.onnx_graph.graph.scopes import Scope
from normswap.layer import NormLayer

__all__ = ["Site", "Slot", "layer_name", "shared_body"]


class Slot(NamedTuple):
    """One input of a node.

    Attributes:
        node: The node.
        position: Which of its inputs.
    """

    node: onnx.NodeProto
    position: int


@dataclass(frozen=True, eq=False)
class Site:
    """A layer and its place in a graph, filled by the reader of its operator.

    Values are names in the scope, empty where the layer has none; nothing but the reader knows which input of which
    node they are.

    Attributes:
        layer: What the layer computes, as data.
        scope: Where the values live.
        node: The node that writes the output.
        x: What is normalized.
        scale: The weight.
        bias: The bias.
        mean: The mean that the layer normalizes with.
        var: The variance that the layer normalizes with.
        channel_axis: Axis of x that the parameters belong to.
        mean_slot: Where the mean enters; None where there is none.
        var_slot: Where the variance enters.
    """

    layer: NormLayer
    scope: Scope
    node: onnx.NodeProto
    x: str = ""
    scale: str = ""
    bias: str = ""
    mean: str = ""
    var: str = ""
    channel_axis: int = 1
    mean_slot: Slot | None = None
    var_slot: Slot | None = None

    @property
    def y(self) -> str:
        """Name of the output."""
        return str(self.node.output[0])

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """Name the node in the model's code: equal for all calls of one function."""
        return self.scope.body, self.y

    @property
    def inputs(self) -> tuple[str, ...]:
        """All values that the layer reads."""
        return tuple(filter(None, (self.x, self.scale, self.bias, self.mean, self.var)))


def layer_name(scope: Scope, node: onnx.NodeProto) -> str:
    """Name a layer by the value that it writes, after the path of its scope."""
    return "/".join((*scope.path, node.output[0]))


def shared_body(scope: Scope, node: onnx.NodeProto) -> str:
    """Name the node within the code of its local function, which all calls share; nothing outside of one."""
    function = scope.function
    if function is None:
        return ""
    inside = scope.body[4:]  # what comes before names the function
    return "/".join((f"{function.domain}::{function.name}", *inside, node.output[0]))
