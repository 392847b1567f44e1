"""Second witness, the ONNX half: one converted layer's operators, cut out of the model and run alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from normswap.backends.onnx_graph.cut import CutError, cut_out
from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope, walk
from normswap.backends.onnx_graph.graph.shapes import element_of, spelled
from normswap.backends.onnx_graph.runtime import Session
from normswap.backends.onnx_graph.site import Site
from normswap.errors import CannotRunError
from normswap.layer import Array, NormLayer
from normswap.plan import Plan

__all__ = ["CutLayer", "cut"]


@dataclass(frozen=True, eq=False)
class CutLayer:
    """One converted layer as a function of its input alone.

    Attributes:
        layer: The original layer.
        sessions: The cut-out in ONNX Runtime, by how it is run.
        free: Parameters that the cut-out takes as inputs instead of holding them, with their types.
        rank: Rank of the input that it takes.
        trouble: Why there is no cut-out; empty where there is one.
    """

    layer: NormLayer
    sessions: Mapping[str, Session]
    free: Mapping[str, str] = field(default_factory=dict)
    rank: int = 4
    trouble: str = ""

    def __call__(self, x: Array, layer: NormLayer) -> dict[str, Array]:
        """Run on ``x``, free parameters taken from ``layer``; return the output by how it was run."""
        feed = {"x": x} | {name: getattr(layer, name).astype(dtype) for name, dtype in self.free.items()}
        return {how: session.run(feed)["out0"] for how, session in self.sessions.items()}


def cut(before: OnnxModel, after: OnnxModel, plan: Plan, *, free: tuple[str, ...] = ()) -> Iterator[CutLayer]:
    """Cut every planned layer's operators out of the converted model.

    Args:
        before: The original, which says what each layer reads.
        after: The converted model.
        plan: The layers.
        free: Parameters to leave open, besides those known at run time only.
    """
    planned = {layer.name for layer in plan.layers}
    scopes = {(scope.path, scope.body): scope for scope in walk(after)}
    for site in sites(before):
        if site.layer.name not in planned:
            continue
        scope = scopes.get((site.scope.path, site.scope.body))
        if scope is None:
            yield CutLayer(site.layer, {}, trouble="its graph or function is gone")
            continue
        names = {"weight": site.scale, "bias": site.bias, "running_mean": site.mean, "running_var": site.var}
        opened = {
            name: spelled(site.scope.value_type(value)) or site.layer.dtype
            for name, value in names.items()
            if name in free or (name in ("weight", "bias") and getattr(site.layer, name) is None)
        }
        rank = site.layer.rank or 4
        try:
            model = _model(scope, site, {names[word]: (word, opened[word]) for word in opened}, rank)
            sessions = {
                "as written": Session(model, optimize=False, threads=1),
                "optimized": Session(model, optimize=True, threads=1),
            }
        except (CutError, CannotRunError) as error:
            yield CutLayer(site.layer, {}, trouble=str(error))
            continue
        yield CutLayer(site.layer, sessions, opened, rank)


def _model(scope: Scope, site: Site, opened: Mapping[str, tuple[str, str]], rank: int) -> OnnxModel:
    inputs = {site.x: ("x", _tensor_type(site.layer.dtype, rank))}
    inputs |= {name: (word, _tensor_type(dtype, 1)) for name, (word, dtype) in opened.items()}
    proto = cut_out(scope, [site.y], inputs)
    proto.graph.output[0].type.tensor_type.elem_type = element_of(site.layer.dtype)
    if not any("x" in inner.input for inner in proto.graph.node):
        raise CutError("its output does not depend on its input")
    return OnnxModel(proto)


def _tensor_type(dtype: str, rank: int) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(element_of(dtype), [None] * rank)
