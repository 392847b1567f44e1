"""What must hold of every model: drawn graphs, converted to every target, judged by code that shares nothing."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.models.random_graphs import Drawn, models
from support.models.targets import asked
from support.oracles.float64_graphs import UNIT, Evaluation, Layer, layers_of
from support.oracles.graph_differences import bit_flipped, differences, eps_changed, swapped

import normswap
from normswap.api import Conversion

EXAMPLES = int(os.environ.get("NORMSWAP_EXAMPLES", "250"))
NOISE, RUNS, MARGIN, LAST_PLACES = 4.0, 4, 32.0, 32.0
LARGEST_HALF = 65504.0
MUTANTS = ("eps", "swapped", "bit", "put back")
NO_KERNEL = re.compile("NOT_IMPLEMENTED|Could not find an implementation|Failed to find kernel")
NO_RANK = re.compile("number of dimensions is less than 3")  # InstanceNormalization of an input of unknown rank
ROLES = {"unbiased": "unknown"}  # roles of the strategy that the product spells otherwise


@pytest.mark.slow
@pytest.mark.parametrize("target", list(normswap.NORMS))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
@given(drawn=models(), choice=st.integers(0, 99))
def test_a_drawn_model_is_converted_as_stated(target: str, drawn: Drawn, choice: int) -> None:
    before = drawn.proto.SerializeToString(deterministic=True)
    layers = layers_of(drawn.proto)
    plan = normswap.plan(drawn.proto, target, **asked(target))
    check_every_layer_is_in_the_plan(layers, plan)
    if opset_of(drawn.proto) >= 7:  # statistics are told by running them
        check_roles(layers, normswap.find(drawn.proto))
    converted = convert(drawn, target, plan)
    assert drawn.proto.SerializeToString(deterministic=True) == before, "the caller's model was changed"
    if converted is None:
        return
    names = {layer.name for layer in plan.layers}
    planned = [layer for layer in layers if layer.name in names]
    check_structure(drawn.proto, converted, planned)
    check_again(converted, target, plan)
    if not any("#" in layer.name for layer in layers):  # the interpreter knows no numbers
        check_outputs(drawn, converted, target, names)
    chosen = planned[choice % len(planned)]
    check_a_mutant_is_rejected(drawn.proto, converted, target, plan, chosen, choice)


def check_every_layer_is_in_the_plan(layers: list[Layer], plan: normswap.Plan) -> None:
    entries = [layer.name for layer in (*plan.layers, *left_by(plan))]
    assert Counter(entries) == Counter(layer.name for layer in layers)
    assert len(set(entries)) == len(entries), "layer names are not unique"


def left_by(plan: normswap.Plan) -> list[normswap.NormLayer]:
    return [entry.layer for entry in plan.kept] + [entry.layer for entry in plan.refusals]


def check_roles(layers: list[Layer], found: tuple[normswap.NormLayer, ...]) -> None:
    roles = {layer.name: layer.role for layer in found}
    unranked = {layer.name for layer in found if layer.rank is None}
    for layer in layers:
        if layer.name in unranked and roles[layer.name] == "unknown":
            continue  # without a rank, statistics cannot always be told
        meant = layer.node.doc_string.removeprefix("role=").split(" or ")
        said = roles[layer.name]
        assert said in [ROLES.get(role, role) for role in meant], f"{layer.name}: {said}, not {meant}"


def convert(drawn: Drawn, target: str, plan: normswap.Plan) -> onnx.ModelProto | None:
    """Convert and hold the report to be ok; None where nothing would change."""
    options: dict[str, Any] = {"inputs": drawn.feeds, "allow_refusals": True}
    if not plan.layers:
        with pytest.raises(normswap.NothingToConvertError):
            normswap.convert(drawn.proto, target, **asked(target), **options)
        return None
    runs = opset_of(drawn.proto) < 7 or outputs_of(drawn.proto, drawn, optimize=False) is not None
    try:
        conversion = normswap.convert(drawn.proto, target, **asked(target), end_to_end=runs, **options)
    except normswap.UnsupportedModelError:
        assert opset_of(drawn.proto) < 7
        return None
    if is_excused(conversion):
        assert not runs or NO_RANK.search(conversion.report.to_text())
        return None
    assert conversion.report.ok, conversion.report.to_text()
    proto = conversion.model.proto
    assert isinstance(proto, onnx.ModelProto)
    return proto


def is_excused(conversion: Conversion) -> bool:
    """Whether all that failed is that no kernel takes the types, or that the rank came out too small at run time."""
    failed = [check.detail for check in conversion.report.checks if not check.ok]
    unranked = any(layer.rank is None for layer in conversion.plan.layers)
    return bool(failed) and all(NO_KERNEL.search(said) or (unranked and NO_RANK.search(said)) for said in failed)


def check_structure(before: onnx.ModelProto, after: onnx.ModelProto, planned: list[Layer]) -> None:
    if opset_of(before) >= 7:
        assert differences(before, after, planned) == []
    for full in (False, True):
        if passes_the_checker(before, full):
            onnx.checker.check_model(after, full_check=full)


def check_again(converted: onnx.ModelProto, target: str, plan: normswap.Plan) -> None:
    """A second conversion has nothing to do, and the layers that were left are what they were, as far as is known."""
    if any("#" in layer.name for layer in (*plan.layers, *left_by(plan))):
        return  # layers of one name are numbered, and fewer are left to number
    again = {layer.name for layer in normswap.plan(converted, target, **asked(target)).layers}
    if opset_of(converted) < 9:  # shapes behind a converted layer are lost, and InstanceNorms in disguise with them
        again &= {layer.name for layer in plan.layers}
    assert again == set()
    left = {layer.name: layer.role for layer in left_by(plan)}
    found = {layer.name: layer for layer in normswap.find(converted)}
    for name, role in left.items():
        lost = opset_of(converted) < 9 or found[name].rank is None
        assert lost or found[name].role == role, f"{name} was {role}, is {found[name].role}"


def check_outputs(drawn: Drawn, converted: onnx.ModelProto, target: str, planned: set[str]) -> None:
    """The converted model computes what float64 does, within what rounding may do to the original."""
    found = outputs_of(converted, drawn)
    if found is None:
        assert outputs_of(drawn.proto, drawn, optimize=False) is None, "the original runs, the converted model does not"
        return
    exact = Evaluation(drawn.proto, target, planned).run(drawn.feeds)
    noisy = [Evaluation(drawn.proto, target, planned, NOISE, seed).run(drawn.feeds) for seed in range(RUNS)]
    for name, expected in exact.items():
        if largest(expected.array) > LARGEST_HALF and expected.dtype == "float16":
            continue  # float64 goes on where float16 overflows
        floor = max(largest(run[name].array - expected.array) for run in noisy)
        allowed = MARGIN * floor + LAST_PLACES * UNIT[expected.dtype] * largest(expected.array)
        assert found[name].shape == expected.array.shape
        assert largest(found[name].astype(np.float64) - expected.array) <= allowed, name


def check_a_mutant_is_rejected(
    before: onnx.ModelProto,
    converted: onnx.ModelProto,
    target: str,
    plan: normswap.Plan,
    layer: Layer,
    choice: int,
) -> None:
    planned = next(found for found in plan.layers if found.name == layer.name)
    kind = MUTANTS[choice % len(MUTANTS)]
    wrong = onnx.ModelProto()
    wrong.CopyFrom(converted)
    if kind == "eps":
        made = eps_changed(wrong, layer, 1.5 * planned.eps)
    elif kind == "swapped":
        made = not alike(planned) and swapped(wrong, layer)
    elif kind == "bit":
        made = bit_flipped(wrong, choice)
    else:
        made = put_back(wrong, before, target, plan, planned)
    if not made:
        return
    try:
        report = normswap.verify(before, wrong, target, **asked(target), allow_refusals=True, end_to_end=False)
    except normswap.NormswapError:
        return
    assert not report.ok, f"{kind} of {layer.name} was not noticed"


def alike(layer: normswap.NormLayer) -> bool:
    """Whether exchanging weight and bias changes little."""
    if layer.weight is None or layer.bias is None:
        return False
    return largest(layer.weight.astype(np.float64) - layer.bias.astype(np.float64)) < 0.05


def put_back(
    wrong: onnx.ModelProto, before: onnx.ModelProto, target: str, plan: normswap.Plan, layer: normswap.NormLayer
) -> bool:
    """Leave one layer, and those that share its code, as they were."""
    if opset_of(before) < 7:
        return False
    left = [
        other.name for other in plan.layers if other.name == layer.name or (layer.body and other.body == layer.body)
    ]
    if len(left) == len(plan.layers):
        wrong.CopyFrom(before)
        return True
    skip = [glob.escape(name) for name in left]
    conversion = normswap.convert(before, target, **asked(target), skip=skip, allow_refusals=True, end_to_end=False)
    wrong.CopyFrom(conversion.model.proto)
    return True


def outputs_of(model: onnx.ModelProto, drawn: Drawn, *, optimize: bool = True) -> dict[str, Any] | None:
    """Run a model in ONNX Runtime; None where it has no kernel for its types or for a rank known too late."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        arrays = session.run(None, drawn.feeds)
    except Exception as error:  # the runtime's exceptions have no common public base
        if optimize and opset_of(model) >= 7 and not NO_KERNEL.search(str(error)) and not NO_RANK.search(str(error)):
            raise
        return None
    return dict(zip([value.name for value in session.get_outputs()], arrays, strict=True))


def passes_the_checker(model: onnx.ModelProto, full: bool) -> bool:
    try:
        onnx.checker.check_model(model, full_check=full)
    except Exception:  # the checker raises several types
        return False
    return True


def opset_of(model: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def largest(values: Any) -> float:
    return float(np.max(np.abs(values), initial=0.0))
