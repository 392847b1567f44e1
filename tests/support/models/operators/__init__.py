"""CASES: small graphs around one ONNX operator each, drawn at random, on which its rule is tested."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from support.models.operators import elementwise, layouts, normalizations, reductions, sizes
from support.models.operators.case import Build, Case

__all__ = ["CASES", "Build", "Case"]

CASES: Mapping[str, Build] = {
    "Abs": elementwise.unary("Abs"),
    "Add": elementwise.binary("Add"),
    "Add, version 6": elementwise.legacy("Add", np.add),
    "BatchNormalization, version 6": normalizations.batch_normalization_6,
    "BatchNormalization, version 7, training": normalizations.batch_normalization(7, training=True),
    "BatchNormalization, version 9": normalizations.batch_normalization(9, training=False),
    "BatchNormalization, version 14": normalizations.batch_normalization(14, training=False),
    "BatchNormalization, version 15, training": normalizations.batch_normalization(15, training=True),
    "Cast": elementwise.cast,
    "Clip": elementwise.clip,
    "Concat": sizes.count_by("Concat"),
    "Div": elementwise.binary("Div", positive=True),
    "Div, version 6": elementwise.legacy("Div", np.divide),
    "Div, of sizes": sizes.count_by("Div"),
    "Dropout": elementwise.dropout,
    "Equal": elementwise.binary("Equal", bool_result=True),
    "Expand": layouts.expand,
    "Flatten": layouts.flatten,
    "Gather": sizes.count_by("Gather"),
    "GlobalAveragePool": reductions.global_average,
    "Greater": elementwise.binary("Greater", bool_result=True),
    "GreaterOrEqual": elementwise.binary("GreaterOrEqual", bool_result=True),
    "GroupNormalization, version 18": normalizations.group_normalization(18),
    "GroupNormalization, version 21": normalizations.group_normalization(21),
    "Identity": elementwise.unary("Identity"),
    "InstanceNormalization": normalizations.instance_normalization,
    "LayerNormalization": normalizations.layer_normalization,
    "Less": elementwise.where,
    "LessOrEqual": elementwise.binary("LessOrEqual", bool_result=True),
    "Max": elementwise.extreme("Max"),
    "MeanVarianceNormalization": normalizations.mean_variance_normalization,
    "Min": elementwise.extreme("Min"),
    "Mul": elementwise.binary("Mul"),
    "Mul, version 6": elementwise.legacy("Mul", np.multiply),
    "Neg": elementwise.unary("Neg"),
    "Not": elementwise.negated_condition,
    "Pow": elementwise.power,
    "RMSNormalization": normalizations.rms_normalization,
    "Reciprocal": elementwise.unary("Reciprocal"),
    "ReduceL2": reductions.reduction("ReduceL2", 18),
    "ReduceMean": reductions.reduction("ReduceMean", 18),
    "ReduceProd": sizes.count_by("Gather"),
    "ReduceSum": reductions.reduction("ReduceSum", 13),
    "ReduceSum, of sizes": sizes.count_by("ReduceSum"),
    "ReduceSumSquare": reductions.reduction("ReduceSumSquare", 18),
    "Reshape": layouts.reshape,
    "Reshape, split": layouts.reshape_split,
    "Reshape, to a shape": layouts.reshape_to_shape,
    "Shape": layouts.reshape_to_shape,
    "Shape, in part": sizes.shape_part,
    "Size": sizes.count_by("Size"),
    "Slice": sizes.count_by("Slice"),
    "Sqrt": elementwise.unary("Sqrt", positive=True),
    "Squeeze": layouts.squeeze,
    "Sub": elementwise.binary("Sub"),
    "Sub, version 6": elementwise.legacy("Sub", np.subtract),
    "Tile": layouts.tile,
    "Transpose": layouts.transpose,
    "Unsqueeze": layouts.unsqueeze,
    "Where": elementwise.where,
    "Where, constant": elementwise.where_constant,
}
