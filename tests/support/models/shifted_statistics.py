"""A model whose running statistics were shifted on purpose, and the statistics of its data, collected by hand."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime

from normswap.layer import Array

__all__ = ["recalibrated", "run", "shifted"]

_MEAN, _VAR = 3, 4  # inputs of a BatchNormalization node


def shifted(model: onnx.ModelProto, seed: int = 0, strength: float = 1.0) -> onnx.ModelProto:
    """Return a copy with other running statistics, as of data unlike those that the model is used on.

    Each channel's mean moves by about half ``strength`` of its deviation, and its variance by a factor of about e to
    the power of ``strength`` either way, both by a seeded draw.
    """
    model = copy.deepcopy(model)
    rng = np.random.default_rng(seed)
    for node in _batch_norms(model):
        mean, var = (_values(model, node.input[index]) for index in (_MEAN, _VAR))
        drawn = rng.standard_normal((2, len(mean))) * strength
        _store(model, node.input[_MEAN], mean + 0.5 * drawn[0] * np.sqrt(var))
        _store(model, node.input[_VAR], var * np.exp(drawn[1]))
    return model


def recalibrated(model: onnx.ModelProto, x: Array) -> onnx.ModelProto:
    """Return a copy with the statistics of x, all of its samples pooled, each layer's under those of the one before.

    Every node is run in training mode without momentum, where its running statistics become those of the batch; ONNX
    means the variance that is divided by the count.
    """
    training = copy.deepcopy(model)
    collected = []
    for node in _batch_norms(training):
        kept = [attribute for attribute in node.attribute if attribute.name not in ("training_mode", "momentum")]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
        node.attribute.append(onnx.helper.make_attribute("momentum", 0.0))
        node.output.extend(f"{node.output[0]}_{name}" for name in ("mean", "var"))
        collected += [(node.input[_MEAN], node.output[1]), (node.input[_VAR], node.output[2])]
    training.graph.output.extend(
        onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None) for _, output in collected
    )
    found = run(training, x, optimized=False)
    model = copy.deepcopy(model)
    for initializer, output in collected:
        _store(model, initializer, found[output])
    return model


def run(model: onnx.ModelProto, x: Array, *, optimized: bool = True) -> dict[str, Array]:
    """Run a model of one input in ONNX Runtime; return its outputs by name."""
    options = onnxruntime.SessionOptions()
    if not optimized:  # some optimizations are wrong about nodes in training mode
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def _batch_norms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def _values(model: onnx.ModelProto, name: str) -> Array:
    return onnx.numpy_helper.to_array(_tensor(model, name)).astype(np.float64)


def _store(model: onnx.ModelProto, name: str, values: Array) -> None:
    _tensor(model, name).CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))


def _tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    tensors: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
    return tensors[name]
