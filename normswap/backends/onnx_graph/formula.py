"""Formulas of converted layers, proved from the operators of the converted model and not from what was meant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from normswap.algebra.proof import Claim, Proof, prove
from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope, walk
from normswap.backends.onnx_graph.site import Site
from normswap.backends.onnx_graph.view import GraphView
from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.plan import Plan

__all__ = ["LayerProof", "proofs"]

_RANKS = (2, 3, 4, 5)  # that a layer of unknown rank is proved for, one by one


@dataclass(frozen=True, eq=False)
class LayerProof:
    """A planned layer, and whether its operators compute the target's formula.

    Attributes:
        layer: The original layer.
        proof: The proof; of a layer of unknown rank, that of the first rank for which there is none.
        ranks: The ranks that it was tried for.
    """

    layer: NormLayer
    proof: Proof
    ranks: tuple[int, ...]


def proofs(before: OnnxModel, after: OnnxModel, plan: Plan) -> Iterator[LayerProof]:
    """Prove, layer by layer, what the operators of a converted model compute.

    Args:
        before: The original, which says what each layer reads and writes.
        after: The converted model.
        plan: The target and the layers.
    """
    planned = {layer.name for layer in plan.layers}
    scopes = {(scope.path, scope.body): scope for scope in walk(after)}
    graph = GraphView(after, scopes.values())
    for site in sites(before):
        if site.layer.name not in planned:
            continue
        ranks = _ranks(site.layer, plan.norm)
        scope = scopes.get((site.scope.path, site.scope.body))
        yield LayerProof(site.layer, _proof(graph, scope, site, plan.norm, ranks), ranks)


def _ranks(layer: NormLayer, norm: Norm) -> tuple[int, ...]:
    """Return the ranks that a layer's input may have."""
    if layer.rank is not None:
        return (layer.rank,)
    return tuple(rank for rank in _RANKS if rank > 2 or not norm.formula.alone)


def _proof(graph: GraphView, scope: Scope | None, site: Site, norm: Norm, ranks: tuple[int, ...]) -> Proof:
    if scope is None:
        return Proof(False, "its graph or function is gone", readable=False)
    if not math.isfinite(site.layer.eps):
        return Proof(False, f"its eps is {site.layer.eps}", readable=False)
    proof = Proof(False, "it has no rank that it could be proved for", readable=False)
    for rank in ranks:
        proof = prove(graph, _claim(graph, scope, site, norm, rank))
        if not proof.holds:
            break
    return proof


def _claim(graph: GraphView, scope: Scope, site: Site, norm: Norm, rank: int) -> Claim:
    x, scale, bias, mean, var = (graph.key(scope, name) for name in site.node.input[:5])
    formula, channels = norm.formula, site.layer.num_features
    stored = formula.reads_stored
    return Claim(
        x=x,
        y=graph.key(scope, site.node.output[0]),
        rank=rank,
        weight=scale,
        bias=bias,
        mean=mean if stored else None,
        var=var if stored else None,
        eps=Fraction(site.layer.eps),
        over=formula.over,
        groups=formula.groups_of(channels) if formula.joins_channels and channels is not None else None,
        weights=formula.weights,
        channels=channels,
    )
