"""The table of runtimes, measured again: every cell of targets x forms x runtimes x types, on batches of 1 and of 4.

A release of a runtime that computes a form otherwise than the one before it fails here, for better or worse.
"""

from __future__ import annotations

import copy
from typing import get_args

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from support.installed import needs
from support.models.other_forms import OTHER_FORMS
from support.models.targets import TARGETS
from support.readers.manual import DOCS
from support.readers.matrix_table import documented_table, measured_table

from normswap import NORMS, CannotRunError, Norm, NormLayer
from normswap.backends import onnx_graph
from normswap.backends.candidates import run_in
from normswap.layer import Array, Floats
from normswap.norms import Group
from normswap.norms.base import Form, by_name
from normswap.norms.rounding import UNIT_ROUNDOFF, rounding_bound
from normswap.plan import Choice, Plan
from normswap.runtimes import RUNTIMES
from normswap.runtimes.table import SUPPORT, VERDICTS, Verdict

EPS = 1e-3
LARGE_MEAN = {"float32": 1e4, "float16": 2e3}
CONDITIONS = (
    "ordinary",
    "variance about eps",
    "variance below eps",
    "large mean",
    "constant",
    "spike",
)  # a channel each
FORMS = {
    (norm.name, form.name): (norm, form)
    for norm in (TARGETS | {"group": Group(len(CONDITIONS))}).values()  # fewer would hide whether a form cancels
    for form in (*norm.forms.values(), *OTHER_FORMS.get(norm.name, ()))
}
MEASURED = {name: support for name, support in SUPPORT.items() if support.measured}
CELLS = [
    pytest.param(runtime, target, name, dtype, id=f"{runtime}-{target}-{name}-{dtype}")
    for runtime in MEASURED
    for (target, name), (_, form) in FORMS.items()
    for dtype in ("float32", "float16")
    if dtype in form.dtypes
]


def one_layer(dtype: str, opset: int) -> onnx.ModelProto:
    """An eval-mode BatchNormalization of six channels, the batch size left open."""
    rng = np.random.default_rng(1)
    ranges = {"scale": (0.5, 1.5), "bias": (-1, 1), "mean": (-1, 1), "var": (0.5, 2)}
    tensors = [
        onnx.numpy_helper.from_array(rng.uniform(low, high, len(CONDITIONS)).astype(dtype), name)
        for name, (low, high) in ranges.items()
    ]
    element = oh.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [oh.make_tensor_value_info(name, element, ["N", len(CONDITIONS), 9, 7]) for name in ("x", "y")]
    node = oh.make_node("BatchNormalization", ["x", *ranges], ["y"], epsilon=EPS)
    graph = oh.make_graph([node], "one_layer", values[:1], values[1:], tensors)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=10 if opset > 20 else 8)


def batch(samples: int, dtype: str) -> Array:
    """A batch whose channels are in CONDITIONS, samples differing in mean and spread."""
    rng = np.random.default_rng(samples)
    shape = (samples, 9, 7)
    lift, spread = rng.uniform(-1, 1, (samples, 1, 1)), rng.uniform(0.5, 2, (samples, 1, 1))

    def noise() -> Floats:
        return rng.standard_normal(shape)

    spike = 0.01 * noise()
    spike[:, 0, 0] += 100
    channels = [
        noise() * spread + lift,
        noise() * np.sqrt(EPS),
        noise() * np.sqrt(EPS) / 10,
        noise() * spread + LARGE_MEAN[dtype],
        np.broadcast_to(lift, shape),
        spike,
    ]
    return np.stack(channels, axis=1).astype(dtype)


def verdict(norm: Norm, layer: NormLayer, x: Array, found: Array) -> Verdict:
    """Judge an output by float64 arithmetic and the bound that is derived for it."""
    expected = norm.reference(x, layer)
    assert found.shape == expected.shape
    error = np.abs(found.astype(np.float64) - expected)
    error = np.where(np.isnan(error), np.inf, error)

    def outside(unit: float | None) -> set[str]:
        wrong = error > rounding_bound(norm, x.astype(np.float64), layer, expected, unit=unit)
        return {condition for index, condition in enumerate(CONDITIONS) if wrong[:, index].any()}

    if not outside(None):
        return "right"
    if outside(None) == {"large mean"}:
        return "cancels"
    if layer.dtype == "float16" and not outside(UNIT_ROUNDOFF["float16"]):
        return "coarse"
    return "wrong"


def measured(norm: Norm, form: Form, dtype: str, how: str) -> tuple[Verdict, Verdict]:
    """Write a layer in a form, run it on a batch of one and of four, and judge."""
    model = onnx_graph.load(one_layer(dtype, 21 if form.name == "GroupNormalization" else 17))
    (layer,) = onnx_graph.find(model)
    written = copy.copy(norm)
    written.forms = by_name(form)
    converted = onnx_graph.rewrite(model, Plan(written, (layer,), forms={layer.name: Choice(form.name, "measured")}))

    def judged(x: Array) -> Verdict:
        try:
            outputs = run_in(onnx_graph, converted, {"x": x}, how).outputs
        except CannotRunError:
            return "refused"
        return verdict(norm, layer, x, outputs["y"])

    return judged(batch(1, dtype)), judged(batch(4, dtype))


@pytest.mark.parametrize(("runtime", "target", "name", "dtype"), CELLS)
def test_every_cell_is_as_the_table_has_it(runtime: str, target: str, name: str, dtype: str) -> None:
    needs(runtime)
    expected = SUPPORT[runtime].cells[target, name][dtype].verdicts
    for how in onnx_graph.WAYS if runtime == "onnxruntime" else (runtime,):
        assert measured(*FORMS[target, name], dtype, how) == expected, how


def test_the_judge_tells_the_verdicts_apart() -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(one_layer("float16", 17)))
    norm, x = NORMS["instance"], batch(4, "float16")
    right = norm.reference(x, layer)
    assert verdict(norm, layer, x, right.astype(np.float16)) == "right"
    cancelled = right.copy()
    cancelled[:, CONDITIONS.index("large mean")] *= 1.5
    assert verdict(norm, layer, x, cancelled) == "cancels"
    assert verdict(norm, layer, x, right * (1 + 2**-10)) == "coarse"
    assert verdict(norm, layer, x, right * 1.1) == "wrong"
    assert verdict(norm, layer, x, np.full_like(right, np.nan)) == "wrong"


def test_every_form_and_runtime_has_a_cell_and_every_cell_a_form() -> None:
    for runtime, support in SUPPORT.items():
        assert set(support.cells) <= set(FORMS), runtime
        if not support.measured:
            assert support.source.count("/") >= 1, "where it was read"
            continue
        assert set(support.cells) == set(FORMS), runtime
        for key, cells in support.cells.items():
            assert {"float32", "float16"} & set(FORMS[key][1].dtypes) <= set(cells), (runtime, key)
            ours = key[1] in FORMS[key][0].forms
            for cell in (cell for dtype, cell in cells.items() if dtype != "float64"):
                assert ours or cell.cost is None, key
                assert not ours or cell.cost is not None or set(cell.verdicts) != {"right"}, key


def test_every_verdict_is_explained() -> None:
    assert set(VERDICTS) == set(get_args(Verdict))
    assert {
        v for s in SUPPORT.values() for cells in s.cells.values() for c in cells.values() for v in c.verdicts
    } == set(VERDICTS), "a word that no cell has"


def test_what_is_measured_is_what_can_be_run() -> None:
    assert set(MEASURED) == {"onnxruntime", *RUNTIMES}


@pytest.mark.parametrize("key", [key for key, cells in SUPPORT["onnxruntime"].cells.items() if "float64" in cells])
def test_onnxruntime_computes_float64(key: tuple[str, str]) -> None:
    model = onnx_graph.load(one_layer("float64", 17))
    (layer,) = onnx_graph.find(model)
    norm = NORMS[key[0]]
    converted = onnx_graph.rewrite(model, Plan(norm, (layer,), forms={layer.name: Choice(key[1], "measured")}))
    x = batch(4, "float32").astype(np.float64)
    for how in onnx_graph.WAYS:
        assert verdict(norm, layer, x, run_in(onnx_graph, converted, {"x": x}, how).outputs["y"]) == "right"


def test_the_documents_show_the_tables() -> None:
    text = (DOCS / "reference" / "runtimes.md").read_text(encoding="utf-8")
    for table in (measured_table(), documented_table()):
        assert table in text, "PYTHONPATH=tests python -m support.readers.matrix_table prints what belongs there"
