"""First witness: outside the planned layers two programs are the same, node for node and bit for bit.

The comparison reads two programs and nothing that the rewriter made; it shares no code with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec, OutputKind, OutputSpec
from torch.utils import _pytree as pytree

from normswap.backends.differences import Difference
from normswap.backends.torch.calls import operator_name, read_call
from normswap.backends.torch.fx import GraphComparison, compare_graphs, compare_nodes
from normswap.backends.torch.nodes import attribute
from normswap.backends.torch.tensors import same_bits, tensor_difference

__all__ = ["Structure", "compare_structure"]


@dataclass
class Structure:
    """What was compared and what differs.

    Attributes:
        differences: What differs; empty where the structure is proved.
        nodes: How many nodes were compared.
        tensors: How many tensors were compared.
        bytes: How many bytes of tensors were compared.
    """

    differences: list[Difference] = field(default_factory=list)
    nodes: int = 0
    tensors: int = 0
    bytes: int = 0


def compare_structure(before: ExportedProgram, after: ExportedProgram, planned: Mapping[str, str]) -> Structure:
    """Compare two programs outside the planned layers.

    Args:
        before: The original.
        after: What is claimed to be its conversion.
        planned: By the name of the node that gives a planned layer's result, the name of the layer.
    """
    result = Structure()
    leaving = _Leaving(before, planned)
    nodes = compare_nodes(before.graph, after.graph, planned, idle=leaving.nodes, outputs=False)
    result.nodes = nodes.nodes
    result.differences += nodes.differences
    outside = (
        _of_inputs(before, after, nodes),
        _of_outputs(before, after, nodes, leaving),
        _of_tensors(before, after, nodes, leaving, result),
        _of_modules(before.graph_module, after.graph_module, "", result),
        _of_calls(before, after),
    )
    result.differences += [Difference(sentence) for sentences in outside for sentence in sentences]
    return result


class _Leaving:
    """What may go with the planned layers, besides what these alone read.

    Attributes:
        inputs: What each input of the original stands for, by its name.
        nodes: Names of nodes that may be gone: counters of batches, and unread other names of the statistics.
        tensors: Names of tensors that may be gone if they are no inputs.
    """

    def __init__(self, before: ExportedProgram, planned: Mapping[str, str]) -> None:
        named = {node.name: node for node in before.graph.nodes}
        placeholders = [node for node in before.graph.nodes if node.op == "placeholder"]
        self.inputs = {
            node.name: spec for node, spec in zip(placeholders, before.graph_signature.input_specs, strict=True)
        }
        ys = [named[name] for name in planned]
        calls = {y if operator_name(y.target) is not None else y.all_input_nodes[0] for y in ys}
        owners = set()
        for call in calls:
            mean = read_call(call.target, call.args, call.kwargs).running_mean
            target = str(self.inputs[mean.name].target) if mean in placeholders else ""
            if _is_called(target, "running_mean") and set(mean.users) <= calls:
                owners.add(target.removesuffix("running_mean"))
        own = {owner + name for owner in owners for name in ("running_mean", "running_var", "num_batches_tracked")}
        tensors = before.state_dict
        places = {tensors[name].data_ptr() for name in own & tensors.keys()}
        self.tensors = own | {name for name, value in tensors.items() if value.data_ptr() in places}
        self.nodes: set[str] = set()
        for name, spec in self.inputs.items():
            target = str(spec.target)
            if target in own and _is_called(target, "num_batches_tracked"):
                self.nodes |= _counting(named[name])
            elif target in self.tensors and not named[name].users:
                self.nodes.add(name)


def _is_called(target: str, name: str) -> bool:
    return target.rpartition(".")[2] == name


def _counting(counter: fx.Node) -> set[str]:
    """Name a counter and all that is computed from it, if that is nothing but more counts."""
    reached = {counter}
    pending = [counter]
    while pending:
        for user in pending.pop().users:
            if user.op == "output":
                continue
            if str(user.target) not in ("aten.add_.Tensor", "aten.add.Tensor") or set(user.all_input_nodes) - reached:
                return set()
            reached.add(user)
            pending.append(user)
    return {node.name for node in reached}


def _of_inputs(before: ExportedProgram, after: ExportedProgram, nodes: GraphComparison) -> Iterator[str]:
    """Compare what the inputs stand for, and the shapes and types that they are declared with."""
    old = [_input(spec) for spec in before.graph_signature.input_specs if _name(spec) not in nodes.gone]
    new = [_input(spec) for spec in after.graph_signature.input_specs]
    if old != new:
        was = next((spec for spec in old if spec not in new), None)
        now = next((spec for spec in new if spec not in old), None)
        yield f"the inputs differ: {was or 'their order'} became {now or 'another'}"
    declared = {node.name: _declared(node) for node in after.graph.nodes if node.op == "placeholder"}
    for node in before.graph.nodes:
        if node.op == "placeholder" and declared.get(node.name, _declared(node)) != _declared(node):
            yield f"input {node.name} was declared as {_declared(node)} and is as {declared[node.name]}"


def _name(spec: InputSpec | OutputSpec) -> str:
    return str(getattr(spec.arg, "name", ""))


def _input(spec: InputSpec) -> tuple[Any, ...]:
    return spec.kind.name, type(spec.arg).__name__, _name(spec), _constant(spec), spec.target, spec.persistent


def _constant(spec: InputSpec | OutputSpec) -> str:
    return repr(getattr(spec.arg, "value", None))


def _declared(node: fx.Node) -> str:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(map(str, value.shape))}] on {value.device}"
    return str(value)


def _of_outputs(
    before: ExportedProgram, after: ExportedProgram, nodes: GraphComparison, leaving: _Leaving
) -> Iterator[str]:
    """Compare what is returned and stored; an update may go if it would store what is stored already."""
    new, place = _returned(after), 0
    for kind, target, given in _returned(before):
        value = nodes.passed_on.get(given, given)
        here = new[place] if place < len(new) else None
        if here == (kind, target, value):
            place += 1
            continue
        stored = value in leaving.inputs and leaving.inputs[value].target == target
        if kind != OutputKind.BUFFER_MUTATION.name or not (stored or value in leaving.nodes):
            found = "nothing" if here is None else f"{here[0]} {here[2]}"
            yield f"the program returned {kind} {value} and now returns {found} there"
            return
    for kind, _, value in new[place:]:
        yield f"the program now returns {kind} {value}, too"


def _returned(program: ExportedProgram) -> list[tuple[str, str, str]]:
    (node,) = program.graph.find_nodes(op="output")
    (values,) = node.args
    pairs = zip(program.graph_signature.output_specs, values, strict=True)
    return [(spec.kind.name, str(spec.target), _described(value)) for spec, value in pairs]


def _described(value: Any) -> str:
    return value.name if isinstance(value, fx.Node) else f"{type(value).__name__} {value!r}"


def _of_tensors(
    before: ExportedProgram, after: ExportedProgram, nodes: GraphComparison, leaving: _Leaving, result: Structure
) -> Iterator[str]:
    """Compare parameters, buffers and constants."""
    kept = {str(spec.target) for name, spec in leaving.inputs.items() if name not in nodes.gone}
    gone = {str(spec.target) for name, spec in leaving.inputs.items() if name in nodes.gone}
    for old, new in ((before.state_dict, after.state_dict), (before.constants, after.constants)):
        for name, value in old.items():
            if name in new:
                yield from _of_values(name, value, new[name], result)
            elif name in kept or name not in gone | leaving.tensors:
                yield f"tensor {name} is gone"
        for name in new.keys() - old.keys():
            yield f"tensor {name} is new"


def _of_values(name: str, old: Any, new: Any, result: Structure) -> Iterator[str]:
    if not isinstance(old, torch.Tensor) or not isinstance(new, torch.Tensor):
        if type(old) is not type(new):
            yield f"{name} was {type(old).__name__} and is {type(new).__name__}"
        return
    result.tensors += 1
    result.bytes += old.numel() * old.element_size()
    if difference := tensor_difference(old, new):
        yield f"tensor {name} {difference}"


def _of_modules(old: fx.GraphModule, new: fx.GraphModule, path: str, result: Structure) -> Iterator[str]:
    """Compare what the nodes of a graph take from its module: graphs that operators call, tensors, trees."""
    for node in old.graph.nodes:
        if node.op != "get_attr":
            continue
        target = str(node.target)
        label = f"{path}{target}"
        one, other = attribute(old, target), attribute(new, target)
        if isinstance(one, fx.GraphModule) and isinstance(other, fx.GraphModule):
            for difference in compare_graphs(one.graph, other.graph, {}):
                yield f"{label}: {difference.sentence}"
            result.nodes += len(one.graph.nodes)
            yield from _of_modules(one, other, f"{label}.", result)
        elif isinstance(one, torch.Tensor):
            yield from _of_values(label, one, other, result)
        elif type(one) is not type(other) or (isinstance(one, pytree.TreeSpec) and one != other):
            yield f"{label} differs"


def _of_calls(before: ExportedProgram, after: ExportedProgram) -> Iterator[str]:
    """Compare what else a program says: how it is called, and for which shapes."""
    old, new = _said_of(before), _said_of(after)
    yield from (f"the {what} differ" for what in old if old[what] != new[what])
    yield from _of_examples(before.example_inputs, after.example_inputs)


def _said_of(program: ExportedProgram) -> dict[str, Any]:
    spans = program.range_constraints.items()
    return {
        "ranges of dynamic sizes": {str(symbol): (str(span.lower), str(span.upper)) for symbol, span in spans},
        "conditions on inputs": list(getattr(program, "_guards_code", [])),
        "calling conventions": [(entry.fqn, _signature(entry.signature)) for entry in program.module_call_graph],
        "dialects": program.dialect,
    }


def _signature(signature: Any) -> Any:
    if signature is None:
        return None
    sides = (signature.inputs, signature.outputs)
    arguments = [[(type(value).__name__, value.name) for value in side] for side in sides]
    return arguments, str(signature.in_spec), str(signature.out_spec), signature.forward_arg_names


def _of_examples(old: Any, new: Any) -> Iterator[str]:
    (one, old_spec), (other, new_spec) = pytree.tree_flatten(old), pytree.tree_flatten(new)
    if old_spec != new_spec or not all(map(_is_same_example, one, other)):
        yield "the example inputs differ"


def _is_same_example(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and same_bits(one, other)
    return type(one) is type(other) and bool(one == other)
