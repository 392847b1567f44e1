"""Drop graph outputs that carry nothing but running statistics, where the user asks for it."""

from __future__ import annotations

from normswap.backends.onnx_graph.batch_normalization import trains
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of
from normswap.backends.onnx_graph.graph.scopes import walk

__all__ = ["without_statistics"]


def without_statistics(model: OnnxModel) -> OnnxModel:
    """Return the model without those of its outputs that are statistics of a train-mode BatchNormalization.

    A training graph hands its running statistics out to be stored; at test time nobody wants them, and a layer
    whose further outputs are read cannot be converted. The model itself where there are none.
    """
    main = next(walk(model))
    statistics = {
        name
        for node in main.nodes
        if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx") and trains(main, node)
        for name in node.output[1:]
        if name
    }
    kept = [value for value in model.proto.graph.output if value.name not in statistics]
    dropped = [value.name for value in model.proto.graph.output if value.name in statistics]
    if not dropped:
        return model
    bare = copy_of(model)
    del bare.proto.graph.output[:]
    bare.proto.graph.output.extend(kept)
    note = f"outputs dropped on request, running statistics all: {', '.join(dropped)}"
    return OnnxModel(bare.proto, model.path, (*model.notes, note), model.original or model)
