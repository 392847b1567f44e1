"""Second witness, the half of exported programs: one converted layer's nodes, cut out of the graph and run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from normswap.backends.torch_common.graphs import cut
from normswap.backends.torch_common.running import undisturbed
from normswap.backends.torch_common.tensors import to_array, to_tensor
from normswap.backends.torch_program.find import sites, stored_statistic
from normswap.backends.torch_program.model import ProgramModel, resolver
from normswap.errors import CannotRunError
from normswap.layer import Array, NormLayer
from normswap.plan import Plan

__all__ = ["CutLayer", "cut_layers"]

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True, eq=False)
class CutLayer:
    """One converted layer as a function of its input alone.

    Attributes:
        layer: The original layer.
        compute: Its nodes, as a function of x.
        free: By parameter: the node whose stored tensor is replaced by the parameter of the layer given at each call.
        overrides: What ``compute`` reads in place of stored tensors, by node.
        device: Where it runs.
        rank: Rank of the input that it takes.
        trouble: Why there is no cut-out; empty where there is one.
    """

    layer: NormLayer
    compute: Callable[[torch.Tensor], Any] | None = None
    free: Mapping[str, str] = field(default_factory=dict)
    overrides: dict[str, torch.Tensor] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 4
    trouble: str = ""

    def __call__(self, x: Array, layer: NormLayer) -> dict[str, Array]:
        """Run on ``x`` in each memory format; return the output by format.

        Raises:
            CannotRunError: If an operator fails or gives no tensor.
        """
        assert self.compute is not None, "who asks has looked for trouble"
        self.overrides.update({node: to_tensor(getattr(layer, name), self.device) for name, node in self.free.items()})
        given = to_tensor(x, self.device)
        inputs = {"contiguous": given}
        if given.ndim in _FORMATS:
            inputs["channels_last"] = given.to(memory_format=_FORMATS[given.ndim])
        outputs = {}
        with undisturbed():
            for how, tensor in inputs.items():
                try:
                    found = self.compute(tensor)
                except Exception as error:  # whatever stands in the layer's place raises
                    line = next(iter(str(error).splitlines()), "no message")
                    raise CannotRunError(f"{how}: {type(error).__name__}: {line[:400]}") from error
                if not isinstance(found, torch.Tensor):
                    raise CannotRunError(f"{how}: it gives {type(found).__name__}, expected a tensor")
                outputs[how] = to_array(found)
        return outputs


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
            yield CutLayer(site.layer, rank=rank, trouble=compute)
            continue
        opened = {name: stored_statistic(getattr(call, name)).name for name in free}
        noted = call.x.meta.get("val")
        device = noted.device if isinstance(noted, torch.Tensor) else torch.device("cpu")
        yield CutLayer(site.layer, compute, opened, overrides, device, rank)
