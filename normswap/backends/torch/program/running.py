"""Run a program, or the original with its planned layers under the target's stated meaning."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from normswap.backends.torch.calls import read_call, returned_statistics
from normswap.backends.torch.nodes import NodeLayer
from normswap.backends.torch.program.find import sites
from normswap.backends.torch.program.inputs import arguments
from normswap.backends.torch.program.model import ProgramModel, inputs_of, stored_value
from normswap.backends.torch.program.rewrite import copied_tensors
from normswap.backends.torch.running import run_quietly
from normswap.backends.torch.witness import native, stated_meaning
from normswap.backends.values import Run
from normswap.layer import NormLayer
from normswap.plan import Plan

__all__ = ["run", "run_reference"]


def run(model: ProgramModel, arrays: Mapping[str, Any]) -> Run:
    """Run the module that a program gives, on copies of its tensors, its random numbers seeded.

    Raises:
        CannotRunError: If it raises anything.
    """

    def call() -> Any:
        _, args, kwargs = arguments(model.program, arrays)
        return _copied(model.program).module()(*args, **kwargs)

    return run_quietly(call)


def run_reference(model: ProgramModel, plan: Plan, arrays: Mapping[str, Any], *, noise: float, seed: int) -> Run:
    """Run the original's graph node by node, its planned layers as the target means them.

    Raises:
        CannotRunError: If a node raises anything, or the program itself does not take these inputs.
    """
    if not noise:
        run(model, arrays)  # the program holds inputs against conditions that its graph does not
    planned = {layer.name for layer in plan.layers}
    layers = {
        site.node.node.name: (site.layer, site.node)
        for site in sites(model)
        if site.layer.name in planned and site.node is not None
    }
    program = _copied(model.program)
    witness = _Witness(program, plan, layers, noise, seed)

    def call() -> Any:
        leaves, _, _ = arguments(program, arrays)
        given = iter(leaves)
        values = [
            next(given) if spec.kind == InputKind.USER_INPUT else stored_value(program, spec)
            for spec, _ in inputs_of(program)
        ]
        results = witness.run(*values)
        specs = program.graph_signature.output_specs
        returned = [value for spec, value in zip(specs, results, strict=True) if spec.kind == OutputKind.USER_OUTPUT]
        out_spec = program.call_spec.out_spec
        assert isinstance(out_spec, pytree.TreeSpec), "every program has one"
        return pytree.tree_unflatten(returned, out_spec)

    found = run_quietly(call)
    return replace(found, calls={layer.name: witness.calls[layer.name] for layer in plan.layers})


class _Witness(fx.Interpreter):
    """Runs a graph with some of its BatchNorms under their stated meaning."""

    def __init__(
        self,
        program: ExportedProgram,
        plan: Plan,
        layers: Mapping[str, tuple[NormLayer, NodeLayer]],
        noise: float,
        seed: int,
    ) -> None:
        super().__init__(program.graph_module)
        self._plan, self._layers, self._noise, self._seed = plan, layers, noise, seed
        self.calls: Counter[str] = Counter()

    def run_node(self, n: fx.Node) -> Any:
        if n.name not in self._layers:
            return super().run_node(n)
        layer, place = self._layers[n.name]
        self.calls[layer.name] += 1
        call = read_call(n.target, *self.fetch_args_kwargs_from_env(n))
        original = native(self._plan.norm, call.weight, call.bias, call.running_mean, call.running_var, call.eps)
        seed = self._seed + 7919 * list(self._layers).index(n.name)  # a prime: layers draw other noise
        y = stated_meaning(self._plan, layer, original, call.x, noise=self._noise, seed=seed)
        if place.y is place.node:
            return y
        # Its other results: statistics that are not updated, and others that nobody reads.
        kept = {index: getattr(call, name) for index, name in returned_statistics(n.target).items()}
        return (y, *(kept.get(index) for index in range(1, len(n.target._schema.returns))))  # type: ignore[union-attr]


def _copied(program: ExportedProgram) -> ExportedProgram:
    """Copy a program's tensors, which running it may write into; its graph is only read."""
    copied = copy.copy(program)
    copied._state_dict, copied._constants = copied_tensors(program)
    return copied
