"""Second witness, the half of exported programs: one converted layer's nodes, cut out of the graph and run alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from normswap.backends.torch_common.graphs import cut
from normswap.backends.torch_common.probe import CutLayer
from normswap.backends.torch_program.find import sites, stored_statistic
from normswap.backends.torch_program.model import ProgramModel, resolver
from normswap.plan import Plan

__all__ = ["CutLayer", "cut_layers"]


def cut_layers(
    before: ProgramModel, after: ProgramModel, plan: Plan, *, free: tuple[str, ...] = ()
) -> Iterator[CutLayer]:
    """Cut every planned layer's nodes out of the converted program.

    Args:
        before: The original, which says what each layer reads.
        after: The converted program.
        plan: The layers.
        free: Running statistics to leave open.
    """
    planned = {layer.name for layer in plan.layers}
    resolve = resolver(after.program)
    for site in sites(before):
        if site.layer.name not in planned or site.node is None:
            continue
        call, rank = site.node.call, site.layer.rank or 4
        overrides: dict[str, torch.Tensor] = {}
        compute = cut(after.program.graph, site.node.y.name, call.x.name, resolve, overrides)
        if isinstance(compute, str):
            yield CutLayer(site.layer, {}, rank=rank, trouble=compute)
            continue
        opened = {name: partial(overrides.__setitem__, stored_statistic(getattr(call, name)).name) for name in free}
        noted = call.x.meta.get("val")
        device = noted.device if isinstance(noted, torch.Tensor) else torch.device("cpu")
        yield CutLayer(site.layer, {"as exported": compute}, device, opened, rank)
