"""Second witness, the half of exported programs: one converted layer's nodes, cut out of the graph and run alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import fx

from normswap.backends.torch.calls import BatchNormCall
from normswap.backends.torch.fx import cut as cut_graph
from normswap.backends.torch.nodes import Resolve
from normswap.backends.torch.probe import CutLayer
from normswap.backends.torch.program.find import sites, stored_statistic
from normswap.backends.torch.program.model import ProgramModel, resolver
from normswap.plan import Plan

__all__ = ["CutLayer", "cut"]


def cut(before: ProgramModel, after: ProgramModel, plan: Plan, *, free: tuple[str, ...] = ()) -> Iterator[CutLayer]:
    """Cut every planned layer's nodes out of the converted program.

    Args:
        before: The original, which says what each layer reads.
        after: The converted program.
        plan: The layers.
        free: Running statistics to leave open.
    """
    planned = {layer.name for layer in plan.layers}
    resolve = resolver(after.program)
    kept = {node.name for node in after.program.graph.nodes}

    def read(statistic: fx.Node) -> fx.Node:
        """Give what the layer reads: the statistic itself, or the stored one where nothing updates it any more."""
        return statistic if statistic.name in kept else stored_statistic(statistic)

    for site in sites(before):
        if site.layer.name not in planned or site.node is None:
            continue
        call, rank = site.node.call, site.layer.rank or 4
        overrides: dict[str, torch.Tensor] = {}
        compute = cut_graph(
            after.program.graph, site.node.y.name, call.x.name, partial(_operand, call, resolve), overrides
        )
        if isinstance(compute, str):
            yield CutLayer(site.layer, {}, rank=rank, trouble=compute)
            continue
        opened = {name: partial(overrides.__setitem__, read(getattr(call, name)).name) for name in free}
        noted = call.x.meta.get("val")
        device = noted.device if isinstance(noted, torch.Tensor) else torch.device("cpu")
        yield CutLayer(site.layer, {"as exported": compute}, device, opened, rank)


def _operand(call: BatchNormCall, resolve: Resolve, node: fx.Node) -> torch.Tensor | None:
    """Give what stands in a probe for a node: for statistics that an earlier call updates, those that are stored.

    The layer that reads them is probed by itself; what they are updated with is not part of it.
    """
    own = {node.name for node in (call.running_mean, call.running_var) if isinstance(node, fx.Node)}
    return resolve(stored_statistic(node) if node.name in own else node)
