"""backend x norm x case: what is written, and that it verifies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.models.cases import CASES, Case, build
from support.models.everything import MODELS
from support.models.targets import asked

import normswap
from normswap import NORMS, Conversion


def nodes_of(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    pending = [proto.graph, *proto.functions]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else attribute.graphs


def passes_the_checker(proto: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def converted(case: Case, to: str, model: onnx.ModelProto) -> Conversion | None:
    try:
        return normswap.convert(model, to, **asked(to), allow_refusals=True, end_to_end=case.runs, shapes=case.shapes)
    except normswap.NothingToConvertError:
        return None


@pytest.mark.parametrize("name", MODELS)
def test_converts_and_verifies(name: str) -> None:
    made, planned = MODELS[name], set()
    model, inputs = made.build(), made.inputs()
    before = model.SerializeToString(deterministic=True) if isinstance(model, onnx.ModelProto) else b""
    for to in NORMS:
        try:
            conversion = normswap.convert(
                model,
                to,
                **asked(to),
                inputs=inputs,
                allow_refusals=True,
                end_to_end=made.runs,
                shapes=made.shapes,
            )
        except normswap.NothingToConvertError:
            continue
        planned.add(to)
        text = conversion.report.to_text()
        assert conversion.report.ok, text
        assert made.runs == ("end to end  not run" not in text)
        if isinstance(model, onnx.ModelProto):
            assert model.SerializeToString(deterministic=True) == before
            assert passes_the_checker(conversion.model.proto) or not passes_the_checker(model)
    assert planned or not any(role in ("eval", "train") for role in (made.roles or {}).values()) or made.refused


def planned(to: str) -> list[tuple[str, Conversion]]:
    found = []
    for name, case in CASES.items():
        conversion = converted(case, to, build(case.text))
        if conversion is not None:
            found.append((name, conversion))
    return found


@pytest.mark.parametrize("to", ["instance", "batch-stat"])
def test_no_training_mode_is_written(to: str) -> None:
    for name, conversion in planned(to):
        left = {kept.layer.name for kept in conversion.plan.kept}
        trained = [
            node.output[0]
            for node in nodes_of(conversion.model.proto)
            if node.op_type == "BatchNormalization" and len(node.output) > 1
        ]
        assert set(trained) <= left, name


@pytest.mark.parametrize("to", NORMS)
def test_no_tensor_is_added_and_no_opset_changed(to: str) -> None:
    for name, conversion in planned(to):
        source = build(CASES[name].text)
        proto = conversion.model.proto
        assert {t.name for t in proto.graph.initializer} <= {t.name for t in source.graph.initializer}, name
        old = {entry.domain: entry.version for entry in source.opset_import}
        old[""] = max(old[""], 7)
        assert {entry.domain: entry.version for entry in proto.opset_import} == old, name


def test_an_old_opset_is_raised_and_the_report_says_so() -> None:
    conversion = normswap.convert(build(CASES["opset 6, is_test=1"].text), "instance")
    assert conversion.model.opset == 7
    assert any("raised from opset 6 to 7" in note for note in conversion.report.notes)


def test_running_statistics_that_nothing_reads_any_more_are_removed() -> None:
    source = build(CASES["shared parameters"].text)
    proto = normswap.convert(source, "instance").model.proto
    assert {tensor.name for tensor in proto.graph.initializer} == {"s", "b", "v", "column"}  # v is read elsewhere


def test_operators_that_only_computed_the_statistics_are_removed() -> None:
    proto = normswap.convert(build(CASES["computed statistics"].text), "instance").model.proto
    assert [node.op_type for node in proto.graph.node] == ["Relu", "InstanceNormalization", "Neg"]


FORMS = [
    ("opset 9", "instance", ["InstanceNormalization"]),
    ("float16", "instance", ["InstanceNormalization"]),
    ("bfloat16", "instance", ["Cast", "Cast", "Cast", "InstanceNormalization", "Cast"]),
    ("float16 with float32 parameters", "instance", ["Cast", "InstanceNormalization", "Cast"]),
    ("opset 9, five outputs", "population", ["BatchNormalization"]),
]


@pytest.mark.parametrize(("case", "to", "operators"), FORMS)
def test_forms(case: str, to: str, operators: list[str]) -> None:
    conversion = normswap.convert(build(CASES[case].text), to, **asked(to), end_to_end=CASES[case].runs)
    found = [node.op_type for node in conversion.model.proto.graph.node if "normswap/" in node.name]
    assert found == operators


@pytest.mark.parametrize("case", ["opset 9", "opset 18", "float64", "rank 5", "unknown rank"])
def test_batch_stat_reduces_the_batch_axis_by_itself_and_last(case: str) -> None:
    conversion = normswap.convert(build(CASES[case].text), "batch-stat", shapes=CASES[case].shapes)
    proto = conversion.model.proto
    constants = {node.output[0]: node for node in proto.graph.node if node.op_type == "Constant"}
    reduced = []
    for node in proto.graph.node:
        if node.op_type == "ReduceMean" and len(node.input) > 1:
            reduced.append(onnx.numpy_helper.to_array(constants[node.input[1]].attribute[0].t).tolist())
        elif node.op_type == "ReduceMean":
            reduced += [list(a.ints) for a in node.attribute if a.name == "axes"]
    spatial, batch = reduced[::2], reduced[1::2]
    assert batch == [[0], [0]]
    assert all(0 not in axes for axes in spatial)


def test_only_and_skip_choose_layers() -> None:
    model = build(CASES["shared parameters"].text)
    names = {layer.name for layer in normswap.plan(model, "instance", only=["y*"], skip=["y2"]).layers}
    assert names == {"y1"}


def test_calls_of_one_function_are_converted_together_or_not_at_all() -> None:
    model = build(CASES["local function, called three times"].text)
    plan = normswap.plan(model, "instance", skip=["f1/*"])
    assert not plan.layers
    assert all("select all of its calls or none" in refusal.reason for refusal in plan.refusals)


def test_the_conversion_is_recorded() -> None:
    model = build(CASES["shared parameters"].text)
    first = normswap.convert(model, "instance", only=["y1"]).model.proto
    second = normswap.convert(first, "batch-stat", only=["y2"]).model.proto
    (record,) = (prop.value for prop in second.metadata_props if prop.key == "normswap")
    entries = json.loads(record)
    assert [(entry["to"], entry["layers"]) for entry in entries] == [("instance", ["y1"]), ("batch-stat", ["y2"])]
    assert all(len(entry["source_sha256"]) == 64 for entry in entries)


def test_instance_keeps_samples_apart() -> None:
    import onnxruntime

    proto = normswap.convert(build(CASES["opset 9"].text), "instance").model.proto
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((3, 4, 6, 5)).astype(np.float32)
    whole = session.run(None, {"x": x})[0]
    alone = np.concatenate([session.run(None, {"x": sample[None]})[0] for sample in x])
    np.testing.assert_array_equal(whole, alone)


def test_a_raised_model_verifies_against_the_file_it_came_from(tmp_path: Path) -> None:
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(build(CASES["opset 6, is_test absent"].text), before)
    conversion = normswap.convert(before, "instance", output=after)
    assert conversion.report.ok
    assert normswap.verify(before, after, "instance").ok
    (entry,) = json.loads(conversion.model.proto.metadata_props[0].value)
    assert entry["source_sha256"] == hashlib.sha256(before.read_bytes()).hexdigest()


def modes_of(proto: onnx.ModelProto) -> dict[str, bool]:
    """Whether each BatchNormalization of opset 7 trains, by what it writes after its first parameter."""
    return {n.input[1]: len(n.output) > 1 for n in nodes_of(proto) if n.op_type == "BatchNormalization"}


@pytest.mark.parametrize("case", ["opset 6, modes in branches of If"])
def test_raising_an_opset_keeps_each_mode(case: str) -> None:
    conversion = normswap.convert(build(CASES[case].text), "instance", only=["out"])
    assert modes_of(conversion.model.proto) == {"s1": True, "s2": False}


def test_raising_an_opset_keeps_the_mode_of_weight_standardisation() -> None:
    text = CASES["weight standardisation"].text.replace('"" : 17', '"" : 6').replace(", training_mode=1", "")
    text = text.replace("out = Conv(x, ww)", "z = Conv(x, ww) out = BatchNormalization<is_test=1>(z, s1, b1, m1, v1)")
    conversion = normswap.convert(build(text), "batch-stat")
    assert modes_of(conversion.model.proto) == {"s": True}


def test_a_dropout_that_raising_would_silence_is_refused() -> None:
    text = CASES["opset 6, is_test=1"].text.replace("t = Relu(x)", "t = Dropout(x)")
    with pytest.raises(normswap.UnsupportedModelError, match="drops at random"):
        normswap.convert(build(text), "instance")
