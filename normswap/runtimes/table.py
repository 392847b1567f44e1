"""SUPPORT: which forms each runtime computes correctly and how fast, measured or from its documentation.

tests/test_matrix.py measures every cell again, so that a release of a runtime that changes one is noticed; times are
those of benchmarks/forms.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["SUPPORT", "VERDICTS", "Cell", "Support", "Verdict"]

Verdict: TypeAlias = Literal["right", "coarse", "cancels", "wrong", "refused", "taken"]

VERDICTS: dict[Verdict, str] = {
    "right": "within the rounding bound of a probe on every condition",
    "coarse": "within that bound for arithmetic in the layer's own half precision alone",
    "cancels": "outside the bound where |mean| is much larger than the spread, as E[x²] - E[x]² is",
    "wrong": "outside the bound on ordinary data",
    "refused": "not loaded, or not run",
    "taken": "taken, by the documentation; not run here",
}


@dataclass(frozen=True)
class Cell:
    """What a runtime does with a form in one type.

    Attributes:
        one: Verdict on a batch of one.
        four: Verdict on a batch of four, that on one if not given.
        cost: Time as a multiple of eval-mode BatchNormalization in the same runtime, the geometric mean over the shapes
            of benchmarks/forms.py; None where it was not measured.
        opset: The newest operator set for which it holds; None for all.
        why: What there is to know besides.
    """

    one: Verdict
    four: Verdict | None = None
    cost: float | None = None
    opset: int | None = None
    why: str = ""

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """Verdicts on batches of one and of four."""
        return self.one, self.four or self.one

    def usable(self, opset: int) -> bool:
        """Whether the form may be chosen for a model of an operator set."""
        return set(self.verdicts) <= {"right", "taken"} and (self.opset is None or opset <= self.opset)


@dataclass(frozen=True)
class Support:
    """A runtime's column of the table.

    Attributes:
        version: Which release it is about.
        source: Where it is from: ``measured``, or the documentation it was read in.
        cells: By target and form, then by the layer's type. A type or form that is missing is not known.
    """

    version: str
    source: str
    cells: Mapping[tuple[str, str], Mapping[str, Cell]]

    @property
    def measured(self) -> bool:
        """Whether it was run, and is by the tests."""
        return self.source == "measured"


def _cells(f32: Cell | None, f16: Cell | None, f64: Cell | None = None) -> dict[str, Cell]:
    given = {"float32": f32, "float16": f16, "float64": f64}
    return {dtype: cell for dtype, cell in given.items() if cell is not None}


_IN = ("instance", "InstanceNormalization")
_IN_F32 = ("instance", "InstanceNormalization in float32")
_IN_TWO_PASS = ("instance", "two-pass primitives")
_BS_TWO_PASS = ("batch-stat", "two-pass primitives")
_BS_TRANSPOSED = ("batch-stat", "transposed InstanceNormalization")
_BN = ("population", "BatchNormalization")
_PRIMITIVES = ("population", "primitives")
_BLEND_SAMPLE = ("blend", "two-pass primitives, each sample")
_BLEND_BATCH = ("blend", "two-pass primitives, batch")
_GROUPS_IN = ("group", "InstanceNormalization of groups")
_GROUPS_TWO_PASS = ("group", "two-pass primitives of groups")
# Forms that others write and normswap does not: watched, because files have them.
_GROUP = ("instance", "GroupNormalization")
_MVN = ("instance", "MeanVarianceNormalization")
_ONE_PASS = ("instance", "one-pass primitives")
_BS_TRAINING = ("batch-stat", "BatchNormalization, training_mode=1")
_BS_AT_ONCE = ("batch-stat", "two-pass primitives, axes at once")
_BS_MVN = ("batch-stat", "MeanVarianceNormalization")
_BS_ONE_PASS = ("batch-stat", "one-pass primitives")

_TAKEN, _REFUSED = Cell("taken"), Cell("refused")
_NOT_22 = Cell("taken", opset=21, why="its kernel is registered for version 6, and version 22 finds none")

SUPPORT: dict[str, Support] = {
    "onnxruntime": Support(
        "1.32.0",
        "measured",
        {
            _IN: _cells(Cell("right", cost=3.2), Cell("right", cost=1.6)),
            _IN_F32: _cells(None, Cell("right", cost=1.4)),
            _IN_TWO_PASS: _cells(Cell("right", cost=5.3), Cell("right", cost=2.2), Cell("right")),
            _BS_TWO_PASS: _cells(Cell("right", cost=7.0), Cell("right", cost=2.1), Cell("right")),
            _BS_TRANSPOSED: _cells(Cell("right", cost=6.4), Cell("right", cost=2.3)),
            _BN: _cells(Cell("right", cost=1.0), Cell("right", cost=1.0), Cell("right")),
            _PRIMITIVES: _cells(Cell("right", cost=3.3), Cell("right", cost=1.4), Cell("right")),
            _BLEND_SAMPLE: _cells(Cell("right", cost=8.0), Cell("right", cost=2.9)),
            _BLEND_BATCH: _cells(Cell("right", cost=5.9), Cell("right", cost=2.5)),
            _GROUPS_IN: _cells(Cell("right", cost=4.5), Cell("right", cost=2.2)),
            _GROUPS_TWO_PASS: _cells(Cell("right", cost=6.9), Cell("right", cost=2.8)),
            _GROUP: _cells(Cell("cancels"), Cell("cancels")),
            _MVN: _cells(Cell("wrong"), Cell("wrong")),
            _ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
            _BS_TRAINING: _cells(Cell("right"), Cell("right")),
            _BS_AT_ONCE: _cells(Cell("right"), Cell("right")),
            _BS_MVN: _cells(Cell("wrong"), Cell("wrong")),
            _BS_ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
        },
    ),
    "openvino": Support(
        "2026.4.1",
        "measured",
        {
            _IN: _cells(Cell("right", cost=2.7), Cell("right", cost=3.1)),
            _IN_F32: _cells(None, Cell("right", cost=3.0)),
            _IN_TWO_PASS: _cells(Cell("right", cost=2.6), Cell("right", cost=4.9)),
            _BS_TWO_PASS: _cells(Cell("right", cost=2.7), Cell("right", cost=4.8)),
            _BS_TRANSPOSED: _cells(Cell("right", cost=2.9), Cell("right", cost=5.3)),
            _BN: _cells(Cell("right", cost=1.0), Cell("coarse", cost=1.0)),
            _PRIMITIVES: _cells(Cell("right", cost=1.0), Cell("right", cost=1.0)),
            _BLEND_SAMPLE: _cells(Cell("right", cost=2.6), Cell("right", cost=4.9)),
            _BLEND_BATCH: _cells(Cell("right", cost=2.7), Cell("right", cost=4.7)),
            _GROUPS_IN: _cells(Cell("right", cost=2.4), Cell("right", cost=3.3)),
            _GROUPS_TWO_PASS: _cells(Cell("right", cost=2.5), Cell("right", cost=5.9)),
            _GROUP: _cells(Cell("right"), Cell("right")),
            _MVN: _cells(Cell("wrong"), Cell("wrong")),
            _ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
            _BS_TRAINING: _cells(Cell("right"), Cell("coarse")),
            _BS_AT_ONCE: _cells(Cell("right"), Cell("right")),
            _BS_MVN: _cells(Cell("wrong"), Cell("wrong")),
            _BS_ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
        },
    ),
    "opencv": Support(
        "5.0.0",
        "measured",
        {
            _IN: _cells(Cell("cancels", cost=1.5), Cell("cancels", cost=1.6)),
            _IN_F32: _cells(None, Cell("cancels", cost=5.2)),
            _IN_TWO_PASS: _cells(Cell("right", cost=2.0), Cell("right", cost=5.6)),
            _BS_TWO_PASS: _cells(Cell("right", cost=1.8), Cell("right", cost=5.4)),
            _BS_TRANSPOSED: _cells(Cell("cancels", cost=2.4), Cell("cancels", cost=5.9)),
            _BN: _cells(Cell("right", cost=1.0), Cell("right", cost=1.0)),
            _PRIMITIVES: _cells(Cell("right", cost=1.5), Cell("right", cost=4.9)),
            _BLEND_SAMPLE: _cells(Cell("right", cost=2.1), Cell("right", cost=5.7)),
            _BLEND_BATCH: _cells(Cell("right", cost=2.0), Cell("right", cost=6.2)),
            _GROUPS_IN: _cells(Cell("cancels", cost=5.0), Cell("cancels", cost=6.6)),
            _GROUPS_TWO_PASS: _cells(Cell("right", cost=2.8), Cell("right", cost=6.0)),
            _GROUP: _cells(Cell("cancels"), Cell("cancels")),
            _MVN: _cells(Cell("refused"), Cell("refused")),
            _ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
            _BS_TRAINING: _cells(Cell("refused"), Cell("refused")),
            _BS_AT_ONCE: _cells(Cell("right", "wrong"), Cell("right", "wrong")),
            _BS_MVN: _cells(Cell("refused"), Cell("refused")),
            _BS_ONE_PASS: _cells(Cell("cancels", "wrong"), Cell("cancels", "wrong")),
        },
    ),
    "mnn": Support(
        "3.6.1",
        "measured",
        {
            _IN: _cells(Cell("right", cost=1.4), Cell("right", cost=1.5)),
            _IN_F32: _cells(None, Cell("right", cost=1.9)),
            _IN_TWO_PASS: _cells(Cell("right", cost=2.8), Cell("right", cost=3.1)),
            _BS_TWO_PASS: _cells(Cell("right", cost=2.8), Cell("right", cost=3.1)),
            _BS_TRANSPOSED: _cells(Cell("right", cost=1.4), Cell("right", cost=1.9)),
            _BN: _cells(Cell("right", cost=1.0), Cell("right", cost=1.0)),
            _PRIMITIVES: _cells(Cell("right", cost=1.1), Cell("right", cost=1.4)),
            _BLEND_SAMPLE: _cells(Cell("right", cost=2.8), Cell("right", cost=3.2)),
            _BLEND_BATCH: _cells(Cell("right", cost=3.3), Cell("right", cost=3.5)),
            _GROUPS_IN: _cells(Cell("right", cost=1.3), Cell("right", cost=1.6)),
            _GROUPS_TWO_PASS: _cells(Cell("right", cost=2.8), Cell("right", cost=3.7)),
            _GROUP: _cells(Cell("refused"), Cell("refused")),
            _MVN: _cells(Cell("wrong"), Cell("wrong")),
            _ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
            _BS_TRAINING: _cells(Cell("wrong"), Cell("wrong")),
            _BS_AT_ONCE: _cells(Cell("right"), Cell("right")),
            _BS_MVN: _cells(Cell("wrong"), Cell("wrong")),
            _BS_ONE_PASS: _cells(Cell("cancels"), Cell("cancels")),
        },
    ),
    # From documentation. What a runtime of ONNX Runtime refuses falls back to the CPU, slowly, unless it throws.
    "cuda": Support(
        "ONNX Runtime's CUDA provider",
        "microsoft/onnxruntime docs/OperatorKernels.md and core/providers/cuda/nn",
        {
            _IN: _cells(_NOT_22, _NOT_22),
            _IN_F32: _cells(None, _NOT_22),
            _IN_TWO_PASS: _cells(_TAKEN, _TAKEN, _TAKEN),
            _BS_TWO_PASS: _cells(_TAKEN, _TAKEN, _TAKEN),
            _BLEND_SAMPLE: _cells(_TAKEN, _TAKEN),
            _BLEND_BATCH: _cells(_TAKEN, _TAKEN),
            _GROUPS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TRANSPOSED: _cells(_NOT_22, _NOT_22),
            _BS_TRAINING: _cells(
                Cell("refused", why="from opset 14 on the session is not created, rather than falling back"),
                Cell("refused", why="from opset 14 on the session is not created, rather than falling back"),
            ),
            _GROUP: _cells(_REFUSED, _REFUSED),
            _BN: _cells(_TAKEN, _TAKEN, _TAKEN),
            _PRIMITIVES: _cells(_TAKEN, _TAKEN, _TAKEN),
        },
    ),
    "tensorrt": Support(
        "TensorRT 10.15",
        "onnx/onnx-tensorrt docs/operators.md and builtin_op_static_checkers.cpp",
        {
            _IN: _cells(_TAKEN, _TAKEN),
            _IN_F32: _cells(None, _TAKEN),
            _IN_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BLEND_SAMPLE: _cells(_TAKEN, _TAKEN),
            _BLEND_BATCH: _cells(_TAKEN, _TAKEN),
            _GROUPS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TRANSPOSED: _cells(_TAKEN, _TAKEN),
            _BS_TRAINING: _cells(_REFUSED, _REFUSED),
            _GROUP: _cells(_TAKEN, _TAKEN),
            _BN: _cells(_TAKEN, _TAKEN),
            _PRIMITIVES: _cells(_TAKEN, _TAKEN),
        },
    ),
    "coreml": Support(
        "ONNX Runtime's CoreML provider, MLProgram",
        "microsoft/onnxruntime tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md and providers/coreml",
        {
            _IN: _cells(
                Cell("taken", opset=21, why="rank 3 and 4, constant scale and bias; not in the NeuralNetwork format"),
                Cell("taken", opset=21, why="rank 3 and 4, constant scale and bias; not in the NeuralNetwork format"),
            ),
            _IN_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BLEND_SAMPLE: _cells(_TAKEN, _TAKEN),
            _BLEND_BATCH: _cells(_TAKEN, _TAKEN),
            _GROUPS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TRAINING: _cells(_REFUSED, _REFUSED),
            _BN: _cells(
                Cell("taken", why="rank 4, constant parameters"), Cell("taken", why="rank 4, constant parameters")
            ),
            _PRIMITIVES: _cells(_TAKEN, _TAKEN),
        },
    ),
    "webgpu": Support(
        "ONNX Runtime Web, JSEP and native",
        "microsoft/onnxruntime js/web/docs/webgpu-operators.md and core/providers/webgpu/nn",
        {
            _IN: _cells(Cell("cancels", why="its shader computes E[x²] - E[x]²"), Cell("cancels", why="as in float32")),
            _IN_F32: _cells(None, Cell("cancels", why="its shader computes E[x²] - E[x]²")),
            _IN_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BLEND_SAMPLE: _cells(_TAKEN, _TAKEN),
            _BLEND_BATCH: _cells(_TAKEN, _TAKEN),
            _GROUPS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TRANSPOSED: _cells(Cell("cancels", why="as InstanceNormalization"), Cell("cancels")),
            _BS_TRAINING: _cells(
                Cell("refused", why="it is taken, and fails when it is run"), Cell("refused", why="as in float32")
            ),
            _BN: _cells(_TAKEN, _TAKEN),
            _PRIMITIVES: _cells(_TAKEN, _TAKEN),
        },
    ),
    "directml": Support(
        "ONNX Runtime's DirectML provider",
        "microsoft/onnxruntime docs/OperatorKernels.md and core/providers/dml",
        {
            _IN: _cells(_NOT_22, _NOT_22),
            _IN_F32: _cells(None, _NOT_22),
            _IN_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BLEND_SAMPLE: _cells(_TAKEN, _TAKEN),
            _BLEND_BATCH: _cells(_TAKEN, _TAKEN),
            _GROUPS_TWO_PASS: _cells(_TAKEN, _TAKEN),
            _BS_TRANSPOSED: _cells(_NOT_22, _NOT_22),
            _BS_TRAINING: _cells(_REFUSED, _REFUSED),
            _GROUP: _cells(_TAKEN, _TAKEN),
            _BN: _cells(_TAKEN, _TAKEN),
            _PRIMITIVES: _cells(_TAKEN, _TAKEN),
        },
    ),
}
