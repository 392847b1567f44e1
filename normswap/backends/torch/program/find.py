"""Every BatchNorm of an exported program, those inside the graphs that its operators call included."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from normswap.backends.torch.calls import operator_name, read_call, returned_statistics
from normswap.backends.torch.nodes import NodeLayer, Resolve, attribute, node_layers
from normswap.backends.torch.program.model import ProgramModel, inputs_of, output_of, resolver
from normswap.layer import NormLayer

__all__ = ["Site", "find", "nested_graphs", "sites", "stored_statistic"]


@dataclass(frozen=True, eq=False)
class Site:
    """A layer and the node that computes it; None where that is inside a graph which an operator calls."""

    layer: NormLayer
    node: NodeLayer | None


def find(model: ProgramModel) -> tuple[NormLayer, ...]:
    """Return every BatchNorm, in the order of the nodes."""
    return tuple(site.layer for site in sites(model))


def sites(model: ProgramModel) -> tuple[Site, ...]:
    """Return every BatchNorm with its place; names are unique."""
    program = model.program
    resolve = resolver(program)

    def through_updates(node: fx.Node) -> torch.Tensor | None:
        return resolve(stored_statistic(node))

    layers = node_layers(program.graph, through_updates, carried=_carried(program))
    found = [Site(node.layer, node) for node in layers]
    order = {node: index for index, node in enumerate(program.graph.nodes)}
    found = [_with_its_readers(site, order) for site in _with_shared_statistics(found, program)]
    placed = [(order[site.node.node], site) for site in found if site.node is not None]
    for caller, path, graph, inner in nested_graphs(program.graph_module, resolve):
        placed += [(order[caller], Site(layer, None)) for layer in _inside(caller, path, graph, inner)]
    placed.sort(key=lambda pair: pair[0])
    return tuple(_with_unique_names([site for _, site in placed]))


def _with_unique_names(found: list[Site]) -> Iterator[Site]:
    names: set[str] = set()
    for site in found:
        name, number = site.layer.name, 2
        while name in names:  # a module that is called again
            name, number = f"{site.layer.name}#{number}", number + 1
        names.add(name)
        yield Site(replace(site.layer, name=name), site.node)


def stored_statistic(node: fx.Node) -> fx.Node:
    """Follow running statistics back through earlier calls of the same BatchNorm that update them, to those stored."""
    while node.target is operator.getitem:
        call, index = node.args
        assert isinstance(call, fx.Node), "an item of a node's result"
        name = returned_statistics(call.target).get(index) if isinstance(index, int) else None
        given = getattr(read_call(call.target, call.args, call.kwargs), name) if name is not None else None
        if not isinstance(given, fx.Node):
            break
        node = given
    return node


def _carried(program: ExportedProgram) -> frozenset[fx.Node]:
    """Find updated statistics that go nowhere but to their buffers, or to the next call of the same BatchNorm."""
    output = output_of(program.graph)
    returned = zip(program.graph_signature.output_specs, _flat(output), strict=True)
    seen = {value for spec, value in returned if spec.kind != OutputKind.BUFFER_MUTATION}

    def is_carried(item: fx.Node) -> bool:
        return item not in seen and all(user is output or _updates(user, item) for user in item.users)

    return frozenset(
        item
        for node in program.graph.nodes
        for item in node.users
        if item.target is operator.getitem and item.args[1] in returned_statistics(node.target) and is_carried(item)
    )


def _flat(output: fx.Node) -> tuple[object, ...]:
    (values,) = output.args
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def _updates(user: fx.Node, statistic: fx.Node) -> bool:
    """Whether a node reads running statistics for nothing but to update them."""
    if operator_name(user.target) is None:
        return False
    call = read_call(user.target, user.args, user.kwargs)
    return call.trains and statistic not in (call.x, call.weight, call.bias)


def _with_shared_statistics(found: list[Site], program: ExportedProgram) -> Iterator[Site]:
    """Bind calls that update the same running statistics together: one alone would change what the others read."""
    targets = {node.name: spec.target for spec, node in inputs_of(program)}

    def statistics(site: Site) -> str:
        assert site.node is not None, "found in the graph itself"
        given = site.node.call.running_mean
        if not isinstance(given, fx.Node):
            return ""
        name = stored_statistic(given).name
        return targets.get(name) or name

    shared = Counter(statistics(site) for site in found if site.layer.role == "train")
    for site in found:
        name = statistics(site)
        if site.layer.role == "train" and shared[name] > 1:
            yield Site(replace(site.layer, body=f"a BatchNorm that updates {name}"), site.node)
        else:
            yield site


def _with_its_readers(site: Site, order: Mapping[fx.Node, int]) -> Site:
    """Block a layer that updates its statistics in place if something else reads them afterwards."""
    assert site.node is not None, "found in the graph itself"
    node, call = site.node.node, site.node.call
    if site.layer.role != "train" or site.layer.blocked or returned_statistics(node.target):
        return site
    for statistic in (call.running_mean, call.running_var):
        readers = [user for user in statistic.users if order[user] > order[node] and not _updates(user, statistic)]
        if readers:
            reason = (
                f"its running statistics ({statistic}) are read by {readers[0]} after it has updated them, and it "
                "would update them no more"
            )
            return Site(replace(site.layer, blocked=reason), site.node)
    return site


def nested_graphs(
    module: fx.GraphModule, resolve: Resolve, path: str = ""
) -> Iterator[tuple[fx.Node, str, fx.Graph, Resolve]]:
    """Yield the graphs that operators such as torch.cond call.

    Args:
        module: Whose graph holds those operators.
        resolve: Gives the stored tensor that a node of that graph stands for.
        path: Where the module stands, empty for the outermost.

    Yields:
        The outermost node that calls it, its path, the graph, and what resolves its nodes.
    """
    for node in module.graph.nodes:
        graphs = [read for read in node.all_input_nodes if isinstance(_module(module, read), fx.GraphModule)]
        for read in graphs:
            inner = _module(module, read)
            assert isinstance(inner, fx.GraphModule)
            place = f"{path}{node.name}:{read.target}"
            within = _resolver_inside(inner, node, resolve)
            yield node, place, inner.graph, within
            for _, deeper, graph, deeper_resolve in nested_graphs(inner, within, f"{place}/"):
                yield node, deeper, graph, deeper_resolve


def _module(owner: fx.GraphModule, node: fx.Node) -> object:
    return attribute(owner, str(node.target)) if node.op == "get_attr" else None


def _resolver_inside(inner: fx.GraphModule, caller: fx.Node, resolve: Resolve) -> Resolve:
    """Resolve the placeholders of a called graph as what its caller gives last of all."""
    placeholders = [node.name for node in inner.graph.nodes if node.op == "placeholder"]
    given: list[object] = []
    fx.map_arg((caller.args, caller.kwargs), lambda node: given.append(node))
    operands: Mapping[str, object] = (
        dict(zip(placeholders, given[-len(placeholders) :], strict=True))
        if placeholders and len(given) >= len(placeholders)
        else {}
    )

    def within(node: fx.Node) -> torch.Tensor | None:
        if node.op == "get_attr":
            value = attribute(inner, str(node.target))
            return value if isinstance(value, torch.Tensor) else None
        operand = operands.get(node.name) if node.op == "placeholder" else None
        return resolve(operand) if isinstance(operand, fx.Node) else None

    return within


def _inside(caller: fx.Node, path: str, graph: fx.Graph, resolve: Resolve) -> Iterator[NormLayer]:
    for node in node_layers(graph, resolve):
        reason = (
            f"it stands in a graph that {caller.target} calls, where layers cannot be replaced; "
            "program.run_decompositions({}) dissolves such graphs unless they are branches or loops"
        )
        yield replace(node.layer, name=f"{path}/{node.layer.name}", blocked=reason)
