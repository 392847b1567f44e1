"""Every rule says what ONNX Runtime computes, on graphs and numbers drawn at random; a wrong rule is caught."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.models.operators import CASES, Case
from support.oracles.expression_values import Numbers
from support.oracles.wrong_rules import WRONG

from normswap.algebra.reader import Reader, layout_of, retried, split_layout
from normswap.algebra.rules_onnx import RULES, Rules
from normswap.algebra.values import Axes, Tensor
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.view import GraphView

ROOT_SCOPE: tuple[str, ...] = ()


def computed(case: Case) -> Any:
    """What ONNX Runtime makes of it."""
    if case.expected is not None:
        return np.asarray(case.expected, np.float64)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": case.x})[0], np.float64)


def read(case: Case, rules: Rules) -> Any:
    """What the algebra reads, computed with the same numbers."""
    graph = GraphView(OnnxModel(case.model))
    x, y = (ROOT_SCOPE, "x"), (ROOT_SCOPE, "y")
    dims = graph.dims(x)
    assert dims is not None

    def once(splits: Mapping[str, tuple[int, int]]) -> tuple[Reader, Tensor]:
        layout, lengths = layout_of(dims)
        axes = Axes(lengths)
        reader = Reader(graph, x, split_layout(layout, axes, splits), axes, rules=rules)
        return reader, reader.tensor(y)

    reader, tensor = retried(once)
    stored: dict[Hashable, Any] = {(ROOT_SCOPE, name): array for name, array in case.stored.items()}
    return Numbers(case.x, reader.layout, reader.axes, stored).tensor(tensor)


def agrees(name: str, rules: Rules, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data: Any) -> None:
        case = CASES[name](data.draw)
        expected, found = computed(case), read(case, rules)
        assert found.shape == expected.shape
        assert np.all(np.abs(found - expected) <= 1e-4 * (1 + np.abs(expected)))

    check()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_says_what_the_runtime_computes(name: str) -> None:
    agrees(name, RULES, 10)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_caught(name: str) -> None:
    case, kind, wrong = WRONG[name]
    with pytest.raises(AssertionError):
        agrees(case, {**RULES, kind: wrong}, 30)


def test_every_rule_has_a_case_and_a_wrong_one() -> None:
    operators = {op_type for _, op_type in RULES}
    assert {name.split(",")[0] for name in CASES} == operators
    assert {kind[1] for _, kind, _ in WRONG.values()} == operators
