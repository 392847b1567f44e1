"""Third witness: the original model under the target's stated meaning, computed by native train-mode kernels.

Each planned BatchNormalization stays where it is, with its own inputs, and is fed as the target's formula demands. For
statistics of each sample, samples become channels of their own, (N, C, L) -> (1, N * C, L), which is BatchNorm fed
sample by sample. Where its train mode alone does not give the meaning, the native train-mode kernel computes the
statistics, of groups of channels where channels share them, and the native eval-mode kernel is given these, mixed with
the stored ones where the formula does. No operator of the rewrite is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.constants import RANDOM
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, set_nodes
from normswap.backends.onnx_graph.graph.nodes import epsilon_of, with_subgraphs
from normswap.backends.onnx_graph.site import Site
from normswap.backends.onnx_graph.writing import Nodes, Number, name_of
from normswap.norms import Norm
from normswap.norms.formula import Formula
from normswap.norms.rounding import UNIT_ROUNDOFF
from normswap.plan import Plan

__all__ = ["fix_randomness", "witness"]


def witness(model: OnnxModel, plan: Plan, *, noise: float = 0.0, seed: int = 0) -> OnnxModel:
    """Return the original with its planned layers under the target's stated meaning.

    Args:
        model: The original.
        plan: Which layers, and the target.
        noise: Where above 0, each planned layer's input is multiplied by ``1 + noise * u * r``, with r in
            (-1, 1) and u the unit roundoff of its type, which is what rounding elsewhere may do; and its output
            y gets ``noise * u * r * |x w| / sqrt(v + eps)`` more, which is what its own kernel may do.
        seed: Of that noise.
    """
    reference = copy_of(model)
    planned = {layer.name for layer in plan.layers}
    places: dict[tuple[tuple[str, ...], str], Site] = {
        site.key: site for site in sites(reference) if site.layer.name in planned
    }
    containers: dict[tuple[str, ...], Any] = {key[0]: site.scope.nodes for key, site in places.items()}
    for body, field in reversed(containers.items()):  # subgraphs before the graphs that hold them
        nodes = []
        for node in list(field):
            site = places.get((body, node.output[0])) if node.output else None
            if site is None:
                nodes.append(node)
            else:
                nodes += _switched(site, plan.norm, noise, seed + len(nodes))
        set_nodes(field, nodes)
    return reference


def fix_randomness(model: OnnxModel, seed: int = 0) -> tuple[OnnxModel, list[str]]:
    """Give every random operator a seed of its own; return the model and the operators' names."""
    fixed = copy_of(model)
    found: list[str] = []
    codes = (fixed.proto.graph, *fixed.proto.functions)
    for code in (inner for whole in codes for inner in with_subgraphs(whole)):
        for node in code.node:
            if node.domain not in ("", "ai.onnx") or node.op_type not in RANDOM:
                continue
            if node.op_type == "Dropout" and len(node.input) < 3:
                continue  # without its training_mode input it is the identity
            found.append(node.op_type)
            kept = [attribute for attribute in node.attribute if attribute.name != "seed"]
            value = float(seed + len(found))
            seed_type = int(value) if node.op_type == "Dropout" else value
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(onnx.helper.make_attribute("seed", seed_type))
    return fixed, found


def _switched(site: Site, norm: Norm, noise: float, seed: int) -> list[onnx.NodeProto]:
    """Return the nodes that compute one layer's stated meaning, by the formula of the target."""
    node = site.node
    nodes = Nodes(node.output[0])
    compute = "float64" if site.layer.dtype == "float64" else "float32"
    x, scale, bias, mean, var = (
        nodes.cast(name, compute) for name in (site.x, site.scale, site.bias, site.mean, site.var)
    )
    size = noise * UNIT_ROUNDOFF[site.layer.dtype]
    flat = nodes.op("Reshape", x, nodes.constant([0, 0, -1], np.int64))  # (N, C, L)
    if noise:
        wobble = nodes.cast(_random(nodes, site, flat, size, seed), compute)
        flat = nodes.op("Mul", flat, nodes.op("Add", wobble, nodes.constant([1.0], compute)))
    if norm.formula.native == "eval":
        y = _frozen(nodes, site, flat, scale, bias, mean, var, compute)
    else:
        shape = nodes.op("Shape", flat)
        samples: Any = 1
        if norm.formula.alone:
            batch, length = (nodes.op("Gather", shape, nodes.constant([axis], np.int64)) for axis in (0, 2))
            folded = nodes.op("Concat", nodes.constant([1, -1], np.int64), length, axis=0)
            scale, bias, mean, var = (nodes.op("Tile", parameter, batch) for parameter in (scale, bias, mean, var))
            flat = nodes.op("Reshape", flat, folded)
        else:
            batch = nodes.op("Gather", shape, nodes.constant([0], np.int64))
            samples = Number(nodes, nodes.cast(batch, compute), compute)
        if norm.formula.native == "train":
            y = _trained(nodes, site, flat, scale, bias, compute, size, seed)
        else:
            own = _own_statistics(nodes, site, norm.formula, flat, scale, bias, compute)
            given = _mixed(nodes, norm.formula, own, (mean, var), samples, compute)
            y = _with_given(nodes, site, flat, scale, bias, given, compute, size, seed)
    nodes.cast(nodes.op("Reshape", y, nodes.op("Shape", x)), site.layer.dtype, output=node.output[0])
    return nodes.list


def _trained(nodes: Nodes, site: Site, x: str, scale: str, bias: str, compute: str, size: float, seed: int) -> str:
    """Add BatchNormalization in train mode.

    momentum=1 leaves the running statistics as they are, which ONNX Runtime updates in place, and they are
    computed here from scale, so that no initializer can be merged with them (onnxruntime issue 29790).
    """
    y = _train_node(nodes, site, x, scale, bias, compute, 1.0)
    nodes.list[-1].name = f"{site.layer.name}/witness"
    if not size:
        return y
    statistics = _train_node(nodes, site, x, scale, bias, compute, 0.0)
    return _wobbled(nodes, site, x, y, scale, f"{statistics}/var", compute, size, seed)


def _with_given(
    nodes: Nodes,
    site: Site,
    x: str,
    scale: str,
    bias: str,
    given: tuple[str, str],
    compute: str,
    size: float,
    seed: int,
) -> str:
    """Add BatchNormalization in eval mode, with a mean and a variance in the place of the stored ones."""
    y = nodes.op("BatchNormalization", x, scale, bias, *given, name=f"{site.layer.name}/witness")
    if (epsilon := epsilon_of(site.node)) is not None:
        nodes.list[-1].attribute.append(epsilon)
    return _wobbled(nodes, site, x, y, scale, given[1], compute, size, seed) if size else y


def _mixed(
    nodes: Nodes, formula: Formula, own: tuple[str, str], stored: tuple[str, str], samples: Any, compute: str
) -> tuple[str, str]:
    """Add the mixture of statistics that the formula asks for.

    By elementary operators: momentum, by which the running outputs are such a mixture already, is a float32 attribute,
    which knows no batch size and is too coarse for float64.
    """
    if formula.weights is None:
        return own
    of_own, of_stored = (name_of(nodes, weight, compute) for weight in formula.weights(samples))
    mean, var = (
        nodes.op("Add", nodes.op("Mul", one, of_own), nodes.op("Mul", other, of_stored))
        for one, other in zip(own, stored, strict=True)
    )
    return mean, var


def _own_statistics(
    nodes: Nodes, site: Site, formula: Formula, x: str, scale: str, bias: str, compute: str
) -> tuple[str, str]:
    """Add what train mode takes for the mean and the variance of x: with momentum=0 its running outputs.

    Where channels share statistics, each group of them becomes one channel, whose statistics are then repeated.
    """
    if not formula.joins_channels:
        y = _train_node(nodes, site, x, scale, bias, compute, 0.0)
        return f"{y}/mean", f"{y}/var"
    assert site.layer.num_features is not None, "the plan refuses others"
    together = site.layer.num_features // formula.groups_of(site.layer.num_features)
    length = nodes.op("Gather", nodes.op("Shape", x), nodes.constant([2], np.int64))
    grouped = nodes.op("Concat", nodes.constant([0, -1, together], np.int64), length, axis=0)
    rows, first = nodes.constant([-1, together], np.int64), nodes.constant(0, np.int64)
    scale, bias = (nodes.op("Gather", nodes.op("Reshape", v, rows), first, axis=1) for v in (scale, bias))
    y = _train_node(nodes, site, nodes.op("Reshape", x, grouped), scale, bias, compute, 0.0)
    column, repeats = nodes.constant([-1, 1], np.int64), nodes.constant([1, together], np.int64)
    mean, var = (
        nodes.op(
            "Reshape", nodes.op("Tile", nodes.op("Reshape", name, column), repeats), nodes.constant([-1], np.int64)
        )
        for name in (f"{y}/mean", f"{y}/var")
    )
    return mean, var


def _wobbled(
    nodes: Nodes, site: Site, x: str, y: str, scale: str, variance: str, compute: str, size: float, seed: int
) -> str:
    """Add what a kernel of its own may be off by."""
    column = nodes.constant([-1, 1], np.int64)
    std = nodes.op("Sqrt", nodes.op("Add", variance, _epsilon(nodes, site, compute)))
    gain = nodes.op("Reshape", nodes.op("Div", nodes.op("Abs", scale), std), column)
    wobble = nodes.cast(_random(nodes, site, x, size, seed + 1), compute)
    return nodes.op("Add", y, nodes.op("Mul", nodes.op("Mul", wobble, nodes.op("Abs", x)), gain))


def _train_node(nodes: Nodes, site: Site, x: str, scale: str, bias: str, compute: str, momentum: float) -> str:
    zero = nodes.op("Sub", scale, scale)
    one = nodes.op("Add", zero, nodes.constant([1.0], compute))
    y = nodes.op("BatchNormalization", x, scale, bias, zero, one, momentum=momentum)
    added = nodes.list[-1]
    if (epsilon := epsilon_of(site.node)) is not None:
        added.attribute.append(epsilon)
    statistics = ["mean", "var"]
    if site.scope.opset >= 14:
        added.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    else:
        statistics += ["saved_mean", "saved_var"]
    added.output.extend(f"{y}/{word}" for word in statistics)
    return y


def _random(nodes: Nodes, site: Site, like: str, size: float, seed: int) -> str:
    """Add float32 numbers in (-size, size), shaped like a value."""
    if site.scope.opset < 11:
        return nodes.op("RandomUniformLike", like, low=-size, high=size, seed=float(seed), dtype=1)
    # ONNX Runtime has no random operator at opset 22 and later: the fractional parts of multiples of an
    # irrational number are spread evenly (Weyl), and need Range, of opset 11.
    zero, one = nodes.constant(0.0, np.float64), nodes.constant(1.0, np.float64)
    count = nodes.cast(nodes.op("Size", like), "float64")
    irrational = nodes.constant(np.sqrt(2 + seed % 97) + np.sqrt(3), np.float64)
    multiple = nodes.op("Mul", nodes.op("Range", zero, count, one), irrational)
    part = nodes.op("Sub", multiple, nodes.op("Floor", multiple))
    spread = nodes.op("Mul", nodes.op("Sub", part, nodes.constant(0.5, np.float64)),
                      nodes.constant(2 * size, np.float64))  # fmt: skip
    return nodes.cast(nodes.op("Reshape", spread, nodes.op("Shape", like)), "float32")


def _frozen(nodes: Nodes, site: Site, x: str, scale: str, bias: str, mean: str, var: str, compute: str) -> str:
    """Add eval mode by elementary operators, since its native kernel is the one under test."""
    column = nodes.constant([-1, 1], np.int64)
    mean, var, scale, bias = (nodes.op("Reshape", name, column) for name in (mean, var, scale, bias))
    std = nodes.op("Sqrt", nodes.op("Add", var, _epsilon(nodes, site, compute)))
    normalized = nodes.op("Div", nodes.op("Sub", x, mean), std)
    y = nodes.op("Add", nodes.op("Mul", normalized, scale), bias)
    nodes.list[-1].name = f"{site.layer.name}/witness"
    return y


def _epsilon(nodes: Nodes, site: Site, compute: str) -> str:
    """Add eps as a constant, a reference to the function's attribute where the node's is one."""
    epsilon = epsilon_of(site.node)
    if epsilon is None or not epsilon.ref_attr_name:
        return nodes.constant(site.layer.eps, compute)
    name = nodes.op("Constant")
    nodes.list[-1].attribute.add(
        name="value_float", ref_attr_name=epsilon.ref_attr_name, type=onnx.AttributeProto.FLOAT
    )
    return nodes.cast(name, compute)
