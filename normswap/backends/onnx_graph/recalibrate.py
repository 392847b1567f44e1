"""New running statistics in a graph: a tensor that a layer has to itself gets new values, any other is split off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx

from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, set_nodes
from normswap.backends.onnx_graph.graph.nodes import with_subgraphs
from normswap.backends.onnx_graph.rewrite import names_in, remove_idle
from normswap.backends.onnx_graph.site import Site, Slot
from normswap.layer import Array, Floats

__all__ = ["cannot_store", "recalibrated"]


def cannot_store(model: OnnxModel) -> dict[str, str]:
    """Say why a layer cannot be given new statistics, by its name."""
    uses = _uses(model)
    reasons = {site.layer.name: _obstacle(site, uses) for site in sites(model)}
    return {name: reason for name, reason in reasons.items() if reason}


def recalibrated(model: OnnxModel, statistics: Mapping[str, tuple[Floats, Floats]]) -> OnnxModel:
    """Return a copy whose layers have other running means and variances, in the element types that they had.

    Args:
        model: The original.
        statistics: Mean and biased variance, by the name of the layer; none that ``cannot_store`` names.
    """
    changed = copy_of(model)
    graph = changed.proto.graph
    names, uses = names_in(changed.proto), _uses(changed)
    constants: dict[str, list[onnx.NodeProto]] = {}  # by the first output of the node that they stand before
    idle: set[str] = set()
    for site in sites(changed):
        if site.layer.name not in statistics:
            continue
        for place, value in zip(_places(site), statistics[site.layer.name], strict=True):
            name, slot, stored = place.value, place.slot, place.stored
            assert slot is not None and stored is not None, "cannot_store names layers without"
            origin = site.scope.resolve(name)
            if origin.tensor is not None and uses[name] == 1:
                _put(origin.tensor, value, stored)
                continue
            fresh = _fresh(f"{site.y}/{place.name}", names)
            tensor = onnx.TensorProto(name=fresh)
            _put(tensor, value, stored)
            if changed.proto.ir_version >= 4:
                graph.initializer.append(tensor)
            else:  # where every initializer is an input of the graph too, which is not to have new ones
                node = onnx.helper.make_node("Constant", [], [fresh], value=tensor)
                constants.setdefault(slot.node.output[0], []).append(node)
            slot.node.input[slot.position] = fresh
            idle.add(name)
    if constants:
        set_nodes(graph.node, [n for node in graph.node for n in (*constants.get(node.output[0], ()), node)])
    remove_idle(graph, idle)
    return changed


def _obstacle(site: Site, uses: Mapping[str, int]) -> str:
    layer, scope = site.layer, site.scope
    if scope.path:
        inside = "a local function" if scope.function is not None else "a subgraph"
        return f"it stands in {inside}, whose statistics are not changed"
    if site.mean_slot is None or site.var_slot is None:
        return "it has no inputs for statistics"
    given = {value.name for value in scope.model.proto.graph.input}
    for place in _places(site):
        word, name, value = place.word, place.value, place.stored
        if value is None:
            kind = scope.resolve(name).kind
            return f"its {word} {name!r} is {'given by the caller' if kind == 'input' else 'computed'} at run time"
        if value.shape != (layer.num_features,):
            return f"its {word} has shape {value.shape}, expected ({layer.num_features},)"
        if name in given and uses[name] > 1:
            return (
                f"its {word} {name!r} is an input of the graph that something else reads too, so that a tensor of its "
                "own would not be what the caller gives"
            )
    return ""


class _Place(NamedTuple):
    """Where one statistic of a layer is kept."""

    word: str
    name: str
    value: str
    slot: Slot | None
    stored: Array | None


def _places(site: Site) -> tuple[_Place, _Place]:
    mean = _Place("mean", "running_mean", site.mean, site.mean_slot, site.layer.running_mean)
    return mean, _Place("variance", "running_var", site.var, site.var_slot, site.layer.running_var)


def _uses(model: OnnxModel) -> Counter[str]:
    """Count how often each name is read in the main graph: by nodes, in subgraphs too, and as an output."""
    uses: Counter[str] = Counter()
    for graph in with_subgraphs(model.proto.graph):
        uses.update(name for node in graph.node for name in node.input)
        uses.update(value.name for value in graph.output)
    return uses


def _put(tensor: onnx.TensorProto, value: Floats, like: Array) -> None:
    """Give a tensor new values in an element type; its name, documentation and metadata stay."""
    with np.errstate(over="ignore"):  # the caller looks at what came of it
        made = onnx.numpy_helper.from_array(value.astype(like.dtype), tensor.name)
    made.doc_string = tensor.doc_string
    made.metadata_props.extend(tensor.metadata_props)
    if not tensor.HasField("doc_string"):
        made.ClearField("doc_string")
    tensor.CopyFrom(made)


def _fresh(wanted: str, names: set[str]) -> str:
    name, number = wanted, 1
    while name in names:
        name, number = f"{wanted}_{number}", number + 1
    names.add(name)
    return name
