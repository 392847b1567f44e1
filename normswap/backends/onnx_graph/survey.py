"""What a person should know of a model besides its layers: folded BatchNorms, earlier conversions."""

from __future__ import annotations

import json
from collections.abc import Sequence

from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import walk
from normswap.backends.onnx_graph.opset import OLDEST
from normswap.backends.onnx_graph.rewrite import RECORD
from normswap.layer import NormLayer

__all__ = ["remarks"]

_KEEP = (
    "to keep them, export with torch.onnx.export(model, ..., dynamo=False, do_constant_folding=False, "
    "training=torch.onnx.TrainingMode.PRESERVE) from eval mode"
)


def remarks(model: OnnxModel, layers: Sequence[NormLayer]) -> list[str]:
    """Return sentences for people, the most important first."""
    found = []
    convs = biased = instance = 0
    normalized = {site.x for site in sites(model)} - {""}
    for scope in walk(model):
        for node in scope.nodes:
            if node.domain not in ("", "ai.onnx"):
                continue
            if node.op_type in ("Conv", "ConvTranspose"):
                convs += 1
                followed = bool(node.output) and node.output[0] in normalized
                biased += len(node.input) > 2 and bool(node.input[2]) and not followed
            instance += node.op_type in ("InstanceNormalization", "GroupNormalization")
    if not layers:
        found.append("no BatchNorm is left in this model")
        recorded = any(prop.key == RECORD for prop in model.proto.metadata_props)
        # A network without BatchNorm has biases too, but folding leaves one everywhere.
        if 2 * biased > convs and not recorded:
            found.append(
                f"{biased} of {convs} Convs have a bias: BatchNorms look folded into them, which cannot be undone; "
                + _KEEP
            )
        if instance:
            found.append(f"it normalizes each sample by itself already, in {instance} Instance- or GroupNormalization")
    elif biased > len(layers):
        found.append(
            f"partly folded: {convs} Convs and {len(layers)} BatchNorms are left, and {biased} Convs have a bias "
            "and no BatchNorm behind them; folded ones cannot be converted; " + _KEEP
        )
    if model.opset < OLDEST:
        found.append(f"opset {model.opset} is older than ONNX Runtime runs; convert raises it to {OLDEST} first")
    for prop in model.proto.metadata_props:
        if prop.key == RECORD:
            found += _earlier(prop.value)
    return found


def _earlier(record: str) -> list[str]:
    try:
        return [
            f"converted before: {len(entry['layers'])} layers to {entry['to']} by normswap {entry['version']}"
            for entry in json.loads(record)
        ]
    except (ValueError, TypeError, KeyError):
        return ["its metadata hold a record of normswap's that cannot be read"]
