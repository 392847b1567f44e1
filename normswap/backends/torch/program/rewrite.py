"""Carry out a plan on an exported program: a new program, whose graph, signature and tensors are its own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputSpec, OutputKind, OutputSpec

from normswap.backends.torch.calls import read_call
from normswap.backends.torch.fx import swap
from normswap.backends.torch.program.find import sites
from normswap.backends.torch.program.model import ProgramModel, output_of
from normswap.plan import Plan

__all__ = ["copied_graph", "copied_tensors", "rewrite"]

_COUNTERS = (torch.ops.aten.add_.Tensor, torch.ops.aten.add.Tensor)  # what counts the batches that a layer has seen


def rewrite(model: ProgramModel, plan: Plan) -> ProgramModel:
    """Return a converted copy.

    Nodes, inputs and outputs keep their names. Running statistics that nothing reads any more are removed with their
    updates; dynamic shapes, the calling convention, example inputs and all else stay.
    """
    program = model.program
    graph = copied_graph(program.graph)
    nodes = {node.name: node for node in graph.nodes}
    planned = {layer.name for layer in plan.layers}
    specs = list(zip(program.graph_signature.input_specs, graph.find_nodes(op="placeholder"), strict=True))
    targets = {node: str(spec.target) for spec, node in specs if spec.target is not None}
    places = [
        replace(site.node, node=nodes[site.node.node.name], y=nodes[site.node.y.name])
        for site in sites(model)
        if site.layer.name in planned and site.node is not None
    ]
    statistics = _statistics_of({place.node for place in places})
    for place in places:
        swap(graph, place, plan.norm)
    outputs = _Outputs(graph, list(program.graph_signature.output_specs))
    outputs.drop_updates_of({node: targets[node] for node in statistics})
    counters = _counters_beside(statistics, targets)
    for counter in counters:
        outputs.stop_counting(counter, targets[counter])
    state, constants = copied_tensors(program)
    if not plan.norm.formula.reads_stored:
        idle = {node for node in (*statistics, *counters) if not node.users}
        idle |= _aliases_of(idle, targets, state)
        specs = [(spec, node) for spec, node in specs if node not in idle]
        gone = _names_of({targets[node] for node in idle}, {str(spec.target) for spec, _ in specs}, state)
        for name in gone:
            state.pop(name, None)
            constants.pop(name, None)
        for placeholder in idle:
            graph.erase_node(placeholder)
    graph.lint()
    return ProgramModel(_program_of(program, graph, [spec for spec, _ in specs], outputs.specs, state, constants))


def _program_of(
    program: ExportedProgram,
    graph: fx.Graph,
    inputs: list[InputSpec],
    outputs: list[OutputSpec],
    state: dict[str, Any],
    constants: dict[str, Any],
) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, from copying its TreeSpecs
        converted = ExportedProgram(
            root=program.graph_module,
            graph=graph,
            graph_signature=ExportGraphSignature(inputs, outputs),
            state_dict=state,
            range_constraints=dict(program.range_constraints),
            module_call_graph=copy.deepcopy(program.module_call_graph),
            example_inputs=program.example_inputs,
            constants=constants,
            verifiers=program.verifiers,
        )
    if hasattr(program, "_guards_code"):  # made again it lacks what only tracing knew, or a file held
        converted._guards_code = list(program._guards_code)
    return converted


def copied_graph(graph: fx.Graph) -> fx.Graph:
    """Copy a graph with the names of its nodes, of which fx changes some, ``input`` among them."""
    copied = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        made[node] = copied.node_copy(node, made.__getitem__)
        made[node].name = node.name
    return copied


def copied_tensors(program: ExportedProgram) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copy parameters, buffers and constants; those that are one tensor stay one, what is no tensor is shared."""
    memo: dict[int, Any] = {}

    def copied(value: Any) -> Any:
        return copy.deepcopy(value, memo) if isinstance(value, torch.Tensor) else value

    state, constants = (
        {name: copied(value) for name, value in tensors.items()} for tensors in (program.state_dict, program.constants)
    )
    return state, constants


class _Outputs:
    """What a graph returns, and what each of it is for."""

    def __init__(self, graph: fx.Graph, specs: list[OutputSpec]) -> None:
        self._node = output_of(graph)
        self.specs = specs

    def _pairs(self) -> Iterator[tuple[OutputSpec, Any]]:
        (values,) = self._node.args
        assert isinstance(values, (tuple, list)), "a program returns a tuple"
        yield from zip(self.specs, values, strict=True)

    def _keep(self, kept: list[bool]) -> None:
        (values,) = self._node.args
        assert isinstance(values, (tuple, list))
        self._node.args = (tuple(value for value, keep in zip(values, kept, strict=True) if keep),)
        self.specs = [spec for spec, keep in zip(self.specs, kept, strict=True) if keep]
        noted = self._node.meta.get("val")
        if isinstance(noted, (tuple, list)) and len(noted) == len(kept):
            self._node.meta["val"] = tuple(value for value, keep in zip(noted, kept, strict=True) if keep)

    def drop_updates_of(self, targets: dict[fx.Node, str]) -> None:
        """Drop updates of buffers that would store what is stored already."""
        self._keep([not _is_update(spec) or targets.get(value) != spec.target for spec, value in self._pairs()])

    def stop_counting(self, counter: fx.Node, target: str) -> None:
        """Erase the operators that count in a buffer, unless anything else reads it."""
        steps = _steps_of(counter)
        for spec, value in self._pairs():
            if (value is counter or value in steps) and not (_is_update(spec) and spec.target == target):
                return
        self._keep([value not in steps for _, value in self._pairs()])
        for node in reversed(steps):
            node.graph.erase_node(node)


def _steps_of(counter: fx.Node) -> list[fx.Node]:
    """List the operators that add 1 to a value, and to the result again; none if anything else reads it."""
    steps: list[fx.Node] = []
    pending = [counter]
    while pending:
        users = [user for user in pending.pop().users if user.op != "output"]
        if any(user.target not in _COUNTERS or user.args[1:] != (1,) for user in users):
            return []
        steps += users
        pending += users
    return steps


def _is_update(spec: OutputSpec) -> bool:
    return spec.kind == OutputKind.BUFFER_MUTATION


def _statistics_of(calls: set[fx.Node]) -> list[fx.Node]:
    """List the inputs that stand for running statistics which these calls alone read."""
    found: list[fx.Node] = []
    for node in calls:
        call = read_call(node.target, node.args, node.kwargs)
        for value in (call.running_mean, call.running_var):
            if isinstance(value, fx.Node) and value.op == "placeholder" and set(value.users) <= calls:
                found += [value] if value not in found else []
    return found


def _counters_beside(statistics: list[fx.Node], targets: dict[fx.Node, str]) -> list[fx.Node]:
    """List the inputs called ``num_batches_tracked`` that go with running means."""
    named = {target: node for node, target in targets.items()}
    owners = [targets[node].removesuffix("running_mean") for node in statistics if _is_mean(targets[node])]
    return [named[f"{owner}num_batches_tracked"] for owner in owners if f"{owner}num_batches_tracked" in named]


def _aliases_of(idle: set[fx.Node], targets: dict[fx.Node, str], state: dict[str, Any]) -> set[fx.Node]:
    """Find unread inputs that are the same tensors under other names, as a module in two places has."""
    places = {_place(state[targets[node]]) for node in idle if targets[node] in state}
    unread = [node for node, name in targets.items() if not node.users and name in state]
    return {node for node in unread if _place(state[targets[node]]) in places}


def _names_of(gone: set[str], kept: set[str], state: dict[str, Any]) -> set[str]:
    """Add the other names of tensors that are gone, and the counters that go with them, where these are no inputs."""
    places = {_place(state[name]) for name in gone if name in state}
    gone = gone | {name for name, value in state.items() if _place(value) in places}
    counters = {f"{name.removesuffix('running_mean')}num_batches_tracked" for name in gone if _is_mean(name)}
    return (gone | (counters & state.keys())) - kept


def _is_mean(name: str) -> bool:
    return name.rpartition(".")[2] == "running_mean"


def _place(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Say where in memory a tensor lies, and how: tensors of one place are one."""
    return tensor.data_ptr() or id(tensor), tuple(tensor.shape), tensor.stride()
