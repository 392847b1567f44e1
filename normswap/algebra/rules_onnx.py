"""RULES: what each ONNX operator computes. A new operator is one rule and one entry; one without is opaque."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from normswap.algebra.operator import Operator
from normswap.algebra.rules import elementwise, layout, normalizations, reductions, sizes
from normswap.algebra.values import Value

__all__ = ["RULES", "Rule", "Rules"]

Rule: TypeAlias = Callable[[Operator], Value]
Rules: TypeAlias = Mapping[tuple[str, str], Rule]

# (domain, op_type) -> the rule of its first output; If is read by the reader itself, which knows its branches.
RULES: Rules = {
    ("", "Abs"): elementwise.absolute,
    ("", "Add"): elementwise.total,
    ("", "BatchNormalization"): normalizations.batch_normalization,
    ("", "Cast"): elementwise.cast,
    ("", "Clip"): elementwise.clipped,
    ("", "Concat"): sizes.concat,
    ("", "Div"): elementwise.quotient,
    ("", "Dropout"): elementwise.dropout,
    ("", "Equal"): elementwise.compared,
    ("", "Expand"): layout.expand,
    ("", "Flatten"): layout.flatten,
    ("", "Gather"): sizes.gather,
    ("", "GlobalAveragePool"): reductions.global_average,
    ("", "Greater"): elementwise.compared,
    ("", "GreaterOrEqual"): elementwise.compared,
    ("", "GroupNormalization"): normalizations.group_normalization,
    ("", "Identity"): elementwise.same,
    ("", "InstanceNormalization"): normalizations.instance_normalization,
    ("", "LayerNormalization"): normalizations.layer_normalization,
    ("", "Less"): elementwise.compared,
    ("", "LessOrEqual"): elementwise.compared,
    ("", "Max"): elementwise.extreme,
    ("", "MeanVarianceNormalization"): normalizations.mean_variance_normalization,
    ("", "Min"): elementwise.extreme,
    ("", "Mul"): elementwise.product,
    ("", "Neg"): elementwise.negated,
    ("", "Not"): elementwise.plain_call,
    ("", "Pow"): elementwise.power,
    ("", "RMSNormalization"): normalizations.rms_normalization,
    ("", "Reciprocal"): elementwise.reciprocal,
    ("", "ReduceL2"): reductions.norm_of,
    ("", "ReduceMean"): reductions.mean_of,
    ("", "ReduceProd"): reductions.product_of,
    ("", "ReduceSum"): reductions.sum_of,
    ("", "ReduceSumSquare"): reductions.sum_of_squares,
    ("", "Reshape"): layout.reshape,
    ("", "Shape"): sizes.shape,
    ("", "Size"): sizes.size,
    ("", "Slice"): sizes.slice_of,
    ("", "Sqrt"): elementwise.square_root,
    ("", "Squeeze"): layout.squeeze,
    ("", "Sub"): elementwise.difference,
    ("", "Tile"): layout.tile,
    ("", "Transpose"): layout.transpose,
    ("", "Unsqueeze"): layout.unsqueeze,
    ("", "Where"): elementwise.chosen,
}
