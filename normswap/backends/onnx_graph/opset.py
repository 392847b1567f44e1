"""Raise a model whose opset ONNX Runtime has no kernels for, each BatchNorm's mode kept."""

from __future__ import annotations

import onnx
import onnx.version_converter

from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.model import OnnxModel, read_tensor, tensors_of
from normswap.backends.onnx_graph.scopes import first_output
from normswap.errors import UnsupportedModelError

__all__ = ["OLDEST", "raised"]

OLDEST = 7  # the oldest opset of which ONNX Runtime has kernels


def raised(model: OnnxModel) -> OnnxModel:
    """Return the model at opset 7 or later: itself where it is already, else as onnx's converter raises it.

    BatchNormalization below opset 7 trains unless ``is_test=1`` is written; the converter overlooks that, so
    the mode is read first and written again afterwards.

    Raises:
        UnsupportedModelError: If onnx's version converter cannot raise the model.
    """
    if model.opset >= OLDEST:
        return model
    trained = {site.node.output[0] for site in sites(model) if site.layer.role in ("train", "instance")}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in tensors_of(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:  # the converter sees the model, not its file
            array = read_tensor(model, tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            # Its adapter takes one output and is_test=1 alone.
            for index in reversed(range(len(node.attribute))):
                if node.attribute[index].name in ("is_test", "consumed_inputs"):
                    del node.attribute[index]
            node.attribute.append(onnx.helper.make_attribute("is_test", 1))
            del node.output[1:]
    try:
        proto = onnx.version_converter.convert_version(proto, OLDEST)
    except Exception as error:  # the converter raises RuntimeError and its own types
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UnsupportedModelError(
            f"{model.path or 'the model'}: opset {model.opset} is older than ONNX Runtime runs ({OLDEST}), "
            f"and onnx's version converter cannot raise it: {reason.strip()[:300]}"
        ) from error
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization" and first_output(node) in trained:
            names = [f"{node.output[0]}/normswap/{word}" for word in ("mean", "var", "saved_mean", "saved_var")]
            node.output.extend(names)
    proto.producer_name = model.proto.producer_name
    return OnnxModel(
        proto,
        None,
        (*model.notes, f"raised from opset {model.opset} to {OLDEST}, the oldest that ONNX Runtime runs"),
        model,
    )
