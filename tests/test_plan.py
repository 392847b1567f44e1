"""Case -> words of the reason: what a target cannot take is refused, and nothing is half-converted."""

from __future__ import annotations

import pytest
from support.models.cases import CASES, build
from support.models.everything import MODELS
from support.models.targets import asked

import normswap


def model(node: str, x: str = "float[N,4,6,5]", opset: int = 17, more_outputs: str = "") -> str:
    return (
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({x} x) => ({x} y{more_outputs}) '
        f"<int64[1] zero = {{0}}> {{ {node} }}"
    )


BN = "y = BatchNormalization(x, s, b, m, v)"
REFUSED = {
    "rank 2": (model(BN, "float[N,4]"), "instance", "rank 2"),
    "one spatial element": (model(BN, "float[N,4,1,1]"), "instance", "one spatial element"),
    "outputs read": (
        model("y, a, c = BatchNormalization<training_mode=1>(x, s, b, m, v)", more_outputs=", float[4] a"),
        "batch-stat",
        "its further outputs (a: running statistics)",
    ),
    "scale computed": (
        model("k = ReduceMean<axes=[0,2,3], keepdims=0>(x) y = BatchNormalization(x, k, b, m, v)"),
        "instance",
        "scale 'k' is computed at run time (by ReduceMean)",
    ),
    "scale of nothing": (
        model("k = Identity() y = BatchNormalization(x, k, b, m, v)"),
        "instance",
        "scale 'k' is computed at run time (by Identity)",
    ),
    "mean of other data": (
        model("n = Neg(x) k = ReduceMean<axes=[0,2,3], keepdims=0>(n) y = BatchNormalization(x, s, b, k, v)"),
        "instance",
        "its mean is computed at run time and is not that of the batch",
    ),
    "unbiased variance": (
        CASES["computed statistics, unbiased"].text,
        "instance",
        "unbiased variance",
    ),
    "spatial=0": (model("y = BatchNormalization<spatial=0>(x, s, b, m, v)", opset=7), "instance", "spatial=0"),
    "negative epsilon": (model(BN.replace("n(x", "n<epsilon=-1.0>(x")), "instance", "its epsilon is -1.0"),
    "scale of text": (
        model('k = Constant<value_strings=["1", "2", "x", "4"]>() y = BatchNormalization(x, k, b, m, v)'),
        "instance",
        "its scale is of type",
    ),
    "complex bias": (
        model("k = Constant<value = complex64[4] {1, 0, 2, 0, 3, 0, 4, 0}>() y = BatchNormalization(x, s, k, m, v)"),
        "instance",
        "its bias is of type complex64, expected a floating-point type",
    ),
    "epsilon of text": (model(BN.replace("n(x", 'n<epsilon="small">(x')), "instance", "its epsilon is 'small'"),
    "epsilons": (model(BN.replace("n(x", "n<epsilon=[1.0]>(x")), "instance", "its epsilon is [1.0]"),
    "statistics of a vector": (
        model("k = ReduceMean<axes=[0], keepdims=0>(x) y = BatchNormalization(x, s, b, k, v)", "float[N]"),
        "instance",
        "rank 1",
    ),
    "statistics of more than memory": (
        model(
            "k = ReduceMean<axes=[0,2,3], keepdims=0>(x) y = BatchNormalization(x, s, b, k, v)",
            "float[N,4,1000000,1000000]",
        ),
        "instance",
        "(2, 4, 1000000, 1000000) is no input of 1 to 67,108,864 elements",
    ),
    "wrong channels": (model(BN, "float[N,3,6,5]"), "instance", "its input has 3 channels, its parameters 4"),
    "no stored statistics": (CASES["computed statistics"].text, "population", "none are stored"),
    "statistics given at run time": (
        CASES["parameters given at run time"].text.replace(
            "y = BatchNormalization<", "y, a, c = BatchNormalization<training_mode=1, "
        ),
        "population",
        "not stored in the model",
    ),
    "instance to batch-stat": (CASES["instance in disguise"].text, "batch-stat", "InstanceNorm"),
    "no stored statistics to blend": (CASES["computed statistics"].text, "blend", "none are stored"),
    "instance to blend": (CASES["instance in disguise"].text, "blend", "InstanceNorm"),
    "instance to population": (CASES["instance in disguise"].text, "population", "InstanceNorm"),
}


@pytest.mark.parametrize(("text", "to", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_its_reason(text: str, to: str, words: str) -> None:
    proto = build(text)
    (refusal,) = normswap.plan(proto, to, **asked(to)).refusals
    assert words in refusal.reason
    with pytest.raises(normswap.RefusedLayersError) as caught:
        normswap.convert(proto, to, **asked(to))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refused_layers_are_in_the_report() -> None:
    text = model("t = BatchNormalization<spatial=0>(x, s, b, m, v) y = BatchNormalization(t, s, b, m, v)", opset=7)
    conversion = normswap.convert(build(text), "instance", allow_refusals=True, end_to_end=False)
    assert conversion.report.left["t"].startswith("REFUSED: spatial=0")
    assert "left as they are: t (REFUSED: spatial=0" in conversion.report.to_text()


KEPT = {
    "already": (CASES["opset 9"].text, "population", "already population"),
    "already batch statistics": (CASES["computed statistics"].text, "batch-stat", "already batch-stat"),
    "already instance": (CASES["instance in disguise"].text, "instance", "already instance"),
    "weight standardisation": (CASES["weight standardisation"].text, "instance", "weight standardisation"),
}


@pytest.mark.parametrize(("text", "to", "words"), KEPT.values(), ids=KEPT.keys())
def test_kept_with_its_reason(text: str, to: str, words: str) -> None:
    (kept,) = normswap.plan(build(text), to, **asked(to)).kept
    assert words in kept.reason
    with pytest.raises(normswap.NothingToConvertError):
        normswap.convert(build(text), to, **asked(to))


@pytest.mark.parametrize(
    ("name", "to"), [(name, to) for name, model in MODELS.items() if model.refused for to in normswap.NORMS]
)
def test_layers_of_a_module_are_refused_with_their_reasons(name: str, to: str) -> None:
    model = MODELS[name]
    expected = model.refused.get(to, {})
    found = {
        r.layer.name: r.reason for r in normswap.plan(model.build(), to, **asked(to), inputs=model.inputs()).refusals
    }
    assert found.keys() == expected.keys()
    assert all(words in found[layer] for layer, words in expected.items())
