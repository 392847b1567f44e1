"""READERS: which nodes are BatchNorm layers, and where each of them stands.

A new source operator is one reader, which fills a Site, and one entry in READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import onnx

from normswap.backends.onnx_graph.batch_normalization import read_batch_normalization
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope, walk
from normswap.backends.onnx_graph.graph.shapes import dims_of
from normswap.backends.onnx_graph.site import Site, layer_name, shared_body
from normswap.layer import NormLayer

__all__ = ["READERS", "find", "read_foreign", "sites"]

Reader: TypeAlias = Callable[[Scope, onnx.NodeProto], Site]


def find(model: OnnxModel) -> tuple[NormLayer, ...]:
    """Return every BatchNorm of the model, in the order of its nodes."""
    return tuple(site.layer for site in sites(model))


def sites(model: OnnxModel) -> tuple[Site, ...]:
    """Return every BatchNorm of the model with its place; names are unique."""
    local = {(function.domain, function.name) for function in model.proto.functions}
    found: list[Site] = []
    names: set[str] = set()
    for scope in walk(model):
        for node in scope.nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            reader = READERS.get((domain, node.op_type))
            if reader is None and "BatchNorm" in node.op_type and (domain, node.op_type) not in local:
                reader = read_foreign
            if reader is None or not node.output or not node.output[0]:
                continue
            site = reader(scope, node)
            wanted = name = site.layer.name
            number = 2
            while name in names:  # a value may be called as the path of another
                name, number = f"{wanted}#{number}", number + 1
            names.add(name)
            found.append(replace(site, layer=replace(site.layer, name=name)))
    return tuple(_with_one_type_each(found))


def _with_one_type_each(found: list[Site]) -> Iterator[Site]:
    """Block layers of one code whose calls differ in element type: no operators can serve them all."""
    types: dict[object, set[str]] = {}
    for site in found:
        types.setdefault(site.key, set()).add(site.layer.dtype)
    for site in found:
        if len(types[site.key]) > 1 and not site.layer.blocked:
            blocked = f"its local function is called with several types ({', '.join(sorted(types[site.key]))})"
            site = replace(site, layer=replace(site.layer, blocked=blocked))
        yield site


def read_foreign(scope: Scope, node: onnx.NodeProto) -> Site:
    """Name a BatchNorm of a domain whose operators are not known here."""
    x = node.input[0] if node.input else ""
    layer = NormLayer(
        name=layer_name(scope, node),
        role="unknown",
        num_features=None,
        eps=float("nan"),
        weight=None,
        bias=None,
        running_mean=None,
        running_var=None,
        shape=dims_of(scope.value_type(x)) if x else None,
        body=shared_body(scope, node),
        blocked=f"its operator {node.op_type} is of domain {node.domain!r}, whose meaning is not known here",
    )
    return Site(layer, scope, node, x)


READERS: dict[tuple[str, str], Reader] = {  # (domain, op_type) -> what reads the node
    ("", "BatchNormalization"): read_batch_normalization,
}
