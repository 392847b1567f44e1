"""Raise a model whose opset ONNX Runtime has no kernels for, each BatchNorm's mode kept."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.version_converter

from normswap.backends.onnx_graph.batch_normalization import trains
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, read_tensor, tensors_of
from normswap.backends.onnx_graph.graph.nodes import first_output
from normswap.backends.onnx_graph.graph.scopes import Scope, walk
from normswap.errors import UnsupportedModelError, first_line

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
    trained = {(scope.body, node.output[0]) for scope, node in _batch_norms(model) if trains(scope, node)}
    _raise_for_what_would_be_lost(model)
    proto = copy_of(model).proto
    for tensor in tensors_of(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:  # the converter sees the model, not its file
            array = read_tensor(model, tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for _, node in _batch_norms(OnnxModel(proto)):
        _set_is_test(node, True)  # the converter's adapter takes one output and is_test=1 alone
        del node.output[1:]
    try:
        proto = onnx.version_converter.convert_version(proto, OLDEST)
    except Exception as error:  # the converter raises RuntimeError and its own types
        reason = first_line(error, type(error).__name__)
        raise UnsupportedModelError(
            f"{model.path or 'the model'}: opset {model.opset} is older than ONNX Runtime runs ({OLDEST}), "
            f"and onnx's version converter cannot raise it: {reason[:300]}"
        ) from error
    for scope, node in _batch_norms(OnnxModel(proto)):
        _set_is_test(node, None)
        if (scope.body, node.output[0]) in trained:
            names = [f"{node.output[0]}/normswap/{word}" for word in ("mean", "var", "saved_mean", "saved_var")]
            node.output.extend(names)
    proto.producer_name = model.proto.producer_name
    return OnnxModel(
        proto,
        None,
        (*model.notes, f"raised from opset {model.opset} to {OLDEST}, the oldest that ONNX Runtime runs"),
        model,
    )


def _batch_norms(model: OnnxModel) -> Iterator[tuple[Scope, onnx.NodeProto]]:
    """Yield the nodes of the main graph and its subgraphs; functions have opsets of their own."""
    for scope in walk(model):
        if scope.function is None:
            norms = (node for node in scope.nodes if node.op_type == "BatchNormalization" and node.output)
            yield from ((scope, node) for node in norms)


def _set_is_test(node: onnx.NodeProto, value: bool | None) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in ("is_test", "consumed_inputs")]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute("is_test", int(value)))


def _raise_for_what_would_be_lost(model: OnnxModel) -> None:
    """Refuse a Dropout that drops at test time: below opset 7 that is its default, and from 7 to 11 it cannot."""
    for scope in walk(model):
        for node in scope.nodes:
            if node.op_type == "Dropout" and scope.function is None and not scope.attributes(node).get("is_test", 0):
                raise UnsupportedModelError(
                    f"{model.path or 'the model'}: Dropout {first_output(node)!r} drops at random, since it lacks "
                    f"is_test=1, which opset {OLDEST} cannot say; export the model in eval mode"
                )
