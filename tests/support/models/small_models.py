"""Small ONNX models written as text, and what tests of files have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from support import ROOT

__all__ = ["LOWLIGHT", "ONE_LAYER", "RANK_TWO", "built", "tree"]

LOWLIGHT = ROOT / "fixtures" / "lowlight.onnx"

ONE_LAYER = """
<ir_version: 8, opset_import: ["" : 17]>
one_layer (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)
<float[4, 3, 1, 1] w, float[4] scale, float[4] bias, float[4] mean, float[4] var> {
  c = Conv <kernel_shape = [1, 1]> (x, w)
  y = BatchNormalization (c, scale, bias, mean, var)
}
"""

RANK_TWO = """
<ir_version: 8, opset_import: ["" : 17]>
rank_two (float[N, 4] x) => (float[N, 4] y) <float[4] scale, float[4] bias, float[4] mean, float[4] var> {
  y = BatchNormalization (x, scale, bias, mean, var)
}
"""


def built(text: str, seed: int = 0) -> onnx.ModelProto:
    """Parse a model; the values that it declares in <> become initializers, drawn from (0.5, 2)."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        drawn = rng.uniform(0.5, 2, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(drawn, value.name))
    del model.graph.value_info[:]
    return model


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the content of each file, None for a folder, hidden ones too."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}
