"""How others write these layers in ONNX: forms that normswap never writes, watched because files have them."""

from __future__ import annotations

from collections.abc import Callable

from onnx import helper

from normswap.norms import OnnxOps
from normswap.norms.base import Form
from normswap.norms.onnx import along_channels, compute_dtype, emit_in

__all__ = ["OTHER_FORMS"]


def group_normalization(ops: OnnxOps) -> None:
    """GroupNormalization with a group for each channel; from opset 21 on it has a scale for each channel."""
    ops.eps_attribute("GroupNormalization", ops.x, ops.scale, ops.bias, output=ops.y)
    ops.nodes[-1].attribute.append(helper.make_attribute("num_groups", ops.channels))  # type: ignore[attr-defined]


def training_mode(ops: OnnxOps) -> None:
    """BatchNormalization with training_mode=1 and its three outputs, as exporters leave it."""
    ops.eps_attribute("BatchNormalization", ops.x, ops.scale, ops.bias, ops.mean, ops.var, output=ops.y)
    node = ops.nodes[-1]  # type: ignore[attr-defined]
    node.output.extend([f"{ops.y}/running_mean", f"{ops.y}/running_var"])
    node.attribute.append(helper.make_attribute("training_mode", 1))


def mean_variance_normalization(over_batch: bool) -> Callable[[OnnxOps], None]:
    """MeanVarianceNormalization, whose eps is 1e-9 whatever the layer's is."""

    def emit(ops: OnnxOps) -> None:
        def body(x: str, rank: int, y: str | None) -> str:
            normalized = ops.op("MeanVarianceNormalization", x, axes=[*([0] if over_batch else []), *range(2, rank)])
            scaled = ops.op("Mul", normalized, along_channels(ops, ops.scale, ops.param_dtype, rank))
            return ops.op("Add", scaled, along_channels(ops, ops.bias, ops.param_dtype, rank), output=y)

        emit_in("float32", ops, body)

    return emit


def primitives(over_batch: bool, one_pass: bool) -> Callable[[OnnxOps], None]:
    """ReduceMean over all axes at once; in one pass the variance is E[x²] - E[x]²."""

    def emit(ops: OnnxOps) -> None:
        def body(x: str, rank: int, y: str | None) -> str:
            axes = [*([0] if over_batch else []), *range(2, rank)]
            mean = ops.reduce_mean(x, axes)
            centred = ops.op("Sub", x, mean)
            if one_pass:
                squares = ops.reduce_mean(ops.op("Mul", x, x), axes)
                var = ops.op("Sub", squares, ops.op("Mul", mean, mean))
            else:
                var = ops.reduce_mean(ops.op("Mul", centred, centred), axes)
            std = ops.op("Sqrt", ops.op("Add", var, ops.eps_constant(compute_dtype(ops))))
            k = ops.op("Div", along_channels(ops, ops.scale, ops.param_dtype, rank), std)
            bias = along_channels(ops, ops.bias, ops.param_dtype, rank)
            return ops.op("Add", ops.op("Mul", centred, k), bias, output=y)

        emit_in(compute_dtype(ops), ops, body)

    return emit


OTHER_FORMS: dict[str, tuple[Form, ...]] = {  # by target
    "instance": (
        Form("GroupNormalization", group_normalization),
        Form("MeanVarianceNormalization", mean_variance_normalization(over_batch=False)),
        Form("one-pass primitives", primitives(over_batch=False, one_pass=True)),
    ),
    "batch-stat": (
        Form("BatchNormalization, training_mode=1", training_mode),
        Form("two-pass primitives, axes at once", primitives(over_batch=True, one_pass=False)),
        Form("MeanVarianceNormalization", mean_variance_normalization(over_batch=True)),
        Form("one-pass primitives", primitives(over_batch=True, one_pass=True)),
    ),
    "population": (),
}
