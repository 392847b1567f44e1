"""Models that nobody here wrote: all are read, none gives a false alarm, and independent values are reproduced.

The corpus is no part of the project; it is looked for beside the checkout, or where NORMSWAP_CORPUS says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ROOT
from support.models.targets import asked

import normswap
from normswap import Conversion
from normswap.backends.onnx_graph.runtime import Session
from normswap.layer import Array

CORPUS = Path(os.environ.get("NORMSWAP_CORPUS", ROOT.parent / "shared" / "corpus"))
pytestmark = pytest.mark.skipif(
    not (CORPUS / "manifest.json").exists(), reason="the corpus of third-party models is not beside this checkout"
)
MANIFEST: list[dict[str, Any]] = (
    json.loads((CORPUS / "manifest.json").read_text()) if (CORPUS / "manifest.json").exists() else []
)
FILES = {entry["file"]: entry for entry in MANIFEST}
NOT_IN_ORT = {  # files whose operators ONNX Runtime lacks, or that it does not take
    "qonnx_espcn_nnresize_op11.onnx": "onnx.brevitas",
}
EXPECTED = {"instance": "in", "batch-stat": "bs"}
HELD = ["instance", "batch-stat"]


LARGE = "onnx_light_resnet50.onnx"  # a tenth of a gigabyte, which takes all of ten seconds for two targets


def slow_if_large(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow] * (name == LARGE))


def inputs_of(entry: Mapping[str, Any]) -> dict[str, Array] | None:
    if "io" not in entry:
        return None
    with np.load(CORPUS / entry["io"]) as archive:
        return {str(name): archive[f"in_{index}"] for index, name in enumerate(archive["in_names"])}


def convert(entry: Mapping[str, Any], to: str, **options: Any) -> Conversion | None:
    try:
        return normswap.convert(CORPUS / entry["file"], to, **asked(to), allow_refusals=True, **options)
    except normswap.NothingToConvertError:
        return None


@pytest.mark.parametrize("name", FILES)
def test_every_batch_norm_is_found(name: str) -> None:
    entry = FILES[name]
    layers = normswap.find(CORPUS / name)
    calls = entry.get("oracle_bs") or {}
    counted = max(entry["bn"], sum(calls.get(word, 0) for word in ("done", "already", "skip_rank2", "skip_spatial0")))
    assert len(layers) == counted
    assert all(layer.role != "unknown" for layer in layers)


@pytest.mark.parametrize("to", HELD)
@pytest.mark.parametrize("name", [slow_if_large(name) for name in FILES])
def test_converts_and_verifies_with_its_inputs(name: str, to: str) -> None:
    entry = FILES[name]
    if name in NOT_IN_ORT:
        with pytest.raises(normswap.CannotRunError, match=NOT_IN_ORT[name]):
            convert(entry, to)
        conversion = convert(entry, to, end_to_end=False)
    else:
        conversion = convert(entry, to, inputs=inputs_of(entry))
    if conversion is not None:
        assert conversion.report.ok, conversion.report.to_text()


@pytest.mark.parametrize("to", HELD)
@pytest.mark.parametrize("name", [slow_if_large(name) for name, entry in FILES.items() if "io" in entry])
def test_reproduces_what_was_computed_independently(name: str, to: str) -> None:
    entry = FILES[name]
    feed = inputs_of(entry)
    assert feed is not None
    conversion = convert(entry, to, inputs=feed, drop_statistics=True)
    oracle = entry.get(f"oracle_{EXPECTED[to]}") or {"done": 0, "already": 0}
    if conversion is None:  # all of it is the target already, or nothing is left to convert
        return
    # The oracle counts statistics that the graph computes as done, and a train-mode layer as batch statistics already.
    served = len(conversion.plan.layers) + len(conversion.plan.kept)
    assert served in (oracle["done"], oracle["done"] + oracle["already"])
    found = Session(conversion.model, optimize=True).run(feed)
    bounds = {check.name: check.bound or 0.0 for check in conversion.report.of("end to end")}
    with np.load(CORPUS / entry["io"]) as archive:
        for index, output in enumerate(archive["out_names"]):
            if str(output) not in found:
                continue  # running statistics, dropped
            expected = archive[f"{EXPECTED[to]}_out_{index}"]
            value = found[str(output)]
            finite = np.isfinite(expected.astype(np.float64))
            np.testing.assert_array_equal(np.isfinite(value.astype(np.float64)), finite)
            error = np.abs(value[finite].astype(np.float64) - expected[finite].astype(np.float64))
            assert np.max(error, initial=0.0) <= bounds[f"{output} (optimized)"], output


def test_an_expected_output_of_onnx_below_opset_7_is_reproduced_by_the_raised_model() -> None:
    import onnx

    for folder in ("node_op6_test_BatchNorm1d_3d_input_eval", "node_op6_test_BatchNorm3d_eval"):
        data = CORPUS / folder / "test_data_set_0"
        x, y = (
            onnx.numpy_helper.to_array(onnx.TensorProto.FromString((data / f"{word}_0.pb").read_bytes()))
            for word in ("input", "output")
        )
        from normswap.backends import onnx_graph

        raised = onnx_graph.prepare(onnx_graph.load(CORPUS / folder / "model.onnx"))
        (found,) = Session(raised, optimize=False).run({"0": x}).values()
        np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if name not in NOT_IN_ORT])
def test_no_false_alarm_over_twenty_seeds(name: str) -> None:
    entry = FILES[name]
    given: dict[str, Array] | None = None if entry["bn_ranks"] else {}
    for seed in range(20):
        to = HELD[seed % 2]
        try:
            conversion = convert(entry, to, seed=seed, inputs=given)
        except normswap.CannotRunError:
            conversion = convert(entry, to, seed=seed, inputs=inputs_of(entry))
        if conversion is None:
            return
        assert conversion.report.ok, f"seed {seed}: {conversion.report.to_text()}"
