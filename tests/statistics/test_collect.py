"""What is collected inside a running graph is what the layers are given, in every mode, in both frameworks."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support import ROOT
from support.models.cases import CASES, build
from torch import nn

from normswap.backends.inputs import feeds_of
from normswap.backends.torch.factory import build as build_module
from normswap.errors import CannotRunError, SelectionError, UnsupportedModelError
from normswap.layer import Array
from normswap.statistics.collect import MODES, Collection, collect

IMAGES: Array = np.load(ROOT / "fixtures" / "lowlight_images.npz")["dark"]
BATCHES = [IMAGES[:3], IMAGES[3:8], IMAGES[8:9]]
FIXTURE = ROOT / "fixtures" / "lowlight.onnx"


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    return build_module("fixtures.lowlight:Generator", ROOT / "fixtures" / "lowlight.safetensors").eval()


def inputs_of_layers(generator: nn.Module, mode: str) -> dict[str, list[torch.Tensor]]:
    """By hand: train-mode BatchNorm in float64, fed sample by sample, or batches, or eval mode."""
    module = copy.deepcopy(generator).double()
    seen: dict[str, list[torch.Tensor]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train(mode != "eval")
            layer.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).extend(args[0]))
    with torch.no_grad():
        for batch in BATCHES:
            for part in np.split(batch, len(batch)) if mode == "instance" else [batch]:
                module(torch.from_numpy(part).double())
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_both_frameworks_collect_what_layers_are_given(generator: nn.Module, mode: str) -> None:
    expected = inputs_of_layers(generator, mode)
    in_torch, in_onnx = collect(generator, BATCHES, mode), collect(FIXTURE, BATCHES, mode)
    assert list(in_torch.moments) == list(expected)
    assert len(in_onnx.moments) == len(expected)
    for found in (in_torch, in_onnx):
        assert (found.unobserved, found.left, found.unreached, found.batches) == ({}, {}, (), 3)
        for moments, samples in zip(found.moments.values(), expected.values(), strict=True):
            x = torch.stack(samples).flatten(2).numpy()  # (N, C, L)
            std = x.std(axis=(0, 2))
            assert (moments.samples, moments.elements) == (9, 9 * x.shape[2])
            assert np.abs(moments.pooled_mean - x.mean(axis=(0, 2))).max() < 1e-4 * std.min()
            np.testing.assert_allclose(moments.pooled_var, x.var(axis=(0, 2)), rtol=1e-4)
            np.testing.assert_allclose(moments.between_var, x.mean(axis=2).var(axis=0), rtol=1e-3)
            np.testing.assert_allclose(moments.within, x.var(axis=2).mean(axis=0), rtol=1e-3)
            logs = np.log(x.var(axis=2) + moments.eps).mean(axis=0)
            np.testing.assert_allclose(moments.log_within, logs, atol=1e-3)


def test_the_modes_differ(generator: nn.Module) -> None:
    """Else the test above could not tell them apart."""
    last = [list(collect(generator, BATCHES, mode).moments.values())[-1].pooled_var for mode in MODES]
    assert all(np.abs(one / other - 1).max() > 0.1 for one, other in pairwise(last))


def test_outputs_are_those_of_the_mode(generator: nn.Module) -> None:
    outputs: list[Any] = []
    collect(FIXTURE, BATCHES, each=outputs.append)
    with torch.no_grad():
        expected = [generator(torch.from_numpy(batch)).numpy() for batch in BATCHES]
    for found, wanted in zip(outputs, expected, strict=True):
        assert list(found) == ["restored"]
        np.testing.assert_allclose(found["restored"], wanted, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_module_is_left_as_it_was(generator: nn.Module, mode: str) -> None:
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    modes = [module.training for module in generator.modules()]
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    collect(generator, [torch.from_numpy(batch) for batch in BATCHES], mode)
    assert torch.equal(torch.rand(3), drawn), "random numbers"
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert [module.training for module in generator.modules()] == modes
    assert not any(module._forward_pre_hooks for module in generator.modules())
    assert not any(parameter.grad_fn for parameter in generator.parameters())


def test_an_interrupt_leaves_what_was_seen(generator: nn.Module) -> None:
    class Stops(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Stops.calls += 1
            if Stops.calls == 3:  # the first is the look at what the model calls
                raise KeyboardInterrupt
            return x

    model = nn.Sequential(nn.BatchNorm2d(3), Stops(), nn.BatchNorm2d(3))
    collection = Collection(model)
    collection.add(torch.from_numpy(IMAGES[:4]))
    with pytest.raises(KeyboardInterrupt):
        collection.add(torch.from_numpy(IMAGES[4:6]))
    assert {name: moments.samples for name, moments in collection.moments.items()} == {"0": 4, "2": 4}
    collection.add(torch.from_numpy(IMAGES[6:7]))
    assert {name: moments.samples for name, moments in collection.moments.items()} == {"0": 5, "2": 5}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.runs])
@pytest.mark.parametrize("mode", MODES)
def test_small_graphs(name: str, mode: str) -> None:
    """Every layer is seen, or named with the reason why not."""
    from normswap.backends import onnx_graph

    model = onnx_graph.load(build(CASES[name].text))
    feed = feeds_of(onnx_graph, model, None, CASES[name].shapes, 0)[0]
    collection = collect(model, [feed.arrays] * 2, mode)
    roles = {layer: role for layer, role in CASES[name].roles.items() if role != "weight"}
    assert {layer.name for layer in collection.layers} == roles.keys()
    assert not collection.unreached
    for layer in collection.layers:
        assert (layer.name in collection.moments) != (layer.name in collection.unobserved), layer.name
        if layer.name in collection.moments:
            moments = collection.moments[layer.name]
            assert moments.samples > 1
            assert np.isfinite(moments.to_array()).all()
            assert np.all(moments.pooled_var > 0)


@pytest.mark.parametrize(
    "name", ["opset 9", "opset 18", "rank 2", "rank 3", "rank 5", "float16", "float64", "unknown rank"]
)
def test_statistics_of_small_graphs(name: str) -> None:
    case = CASES[name]
    proto = build(case.text)
    from normswap.backends import onnx_graph

    model = onnx_graph.load(proto)
    x = feeds_of(onnx_graph, model, None, {"x": (5, 4, 6, 5)} if case.shapes else {}, 0, 5)[0].arrays["x"]
    moments = collect(model, [{"x": x[:2]}, {"x": x[2:]}]).moments["y"]
    t = np.maximum(x, 0).astype(np.float64)
    axes = (0, *range(2, t.ndim))
    rtol = 1e-12 if name == "float64" else 1e-5
    np.testing.assert_allclose(moments.pooled_mean, t.mean(axes), rtol=rtol)
    np.testing.assert_allclose(moments.pooled_var, t.var(axes), rtol=rtol)
    assert moments.single == (t.ndim == 2)


def test_a_large_mean_cancels_nothing() -> None:
    """At mean 1e4 float32 has an ulp of 1e-3, and the mean of a sample is off by some; E[x²] has one of 8."""
    rng = np.random.default_rng(0)
    x = (1e4 + rng.standard_normal((8, 3, 16, 16))).astype(np.float32)
    exact = x.astype(np.float64).var(axis=(0, 2, 3))
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,16,16] x) => (float[N,3,16,16] y)
        { y = BatchNormalization(x, s, b, m, v) }"""
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.ones(3, np.float32), name) for name in "sbmv")
    for model in (proto, nn.BatchNorm2d(3).eval()):
        (found,) = collect(model, [x[:5], x[5:]]).moments.values()
        np.testing.assert_allclose(found.pooled_var, exact, rtol=2e-4)


def test_calls_of_one_module_are_samples_of_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.bn(self.bn(x) + 7)
            return y

    moments = collect(Twice().eval(), [IMAGES[:2], IMAGES[2:4]]).moments["bn"]
    assert moments.samples == 8
    x = IMAGES[:4].astype(np.float64)
    every = np.concatenate([x, x / np.sqrt(1 + 1e-5) + 7])
    np.testing.assert_allclose(moments.pooled_var, every.var(axis=(0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_and_formats(dtype: torch.dtype, channels_last: bool) -> None:
    x = torch.from_numpy(IMAGES).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    moments = collect(nn.BatchNorm2d(3).to(dtype).eval(), [(x,)]).moments["BatchNorm2d"]
    exact = x.double().numpy().var(axis=(0, 2, 3))
    np.testing.assert_allclose(moments.pooled_var, exact, rtol=1e-12 if dtype == torch.float64 else 1e-5)


def test_a_graph_module_is_looked_into() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(self.bn(x * 2))

    exported = torch.export.export(Functional().eval(), (torch.from_numpy(IMAGES[:4]),), strict=False).module()
    for mode in MODES:
        collection = collect(exported, [torch.from_numpy(IMAGES[:4])], mode)
        (moments,) = collection.moments.values()
        np.testing.assert_allclose(moments.pooled_var, 4 * IMAGES[:4].var(axis=(0, 2, 3)), rtol=1e-4)


def test_functional_calls_are_named_as_unobserved() -> None:
    class Functional(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.batch_norm(x, torch.zeros(3), torch.ones(3))

    collection = collect(Functional().eval(), [torch.from_numpy(IMAGES[:2])])
    assert not collection.moments
    ((name, reason),) = collection.unobserved.items()
    assert name.startswith("batch_norm@test_collect.py")
    assert "functional call" in reason


def test_layers_that_no_batch_reaches_are_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.used(x)
            return y

    collection = collect(Idle().eval(), [IMAGES[:2]])
    assert list(collection.moments) == ["used"]
    assert collection.unreached == ("idle",)


def test_layers_that_do_not_take_the_mode_are_named() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(3 * 64 * 64)).eval()
    collection = collect(model, [IMAGES[:2]], "instance")
    assert "rank 2" in collection.left["2"]
    assert set(collection.moments) == {"0", "2"}


def test_what_a_loader_gives_beside_inputs_is_left_out() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)).eval()
    labels = torch.arange(4)
    for given in (model, FIXTURE):
        batches = [(torch.from_numpy(IMAGES[:4]), labels), [torch.from_numpy(IMAGES[4:8]), labels]]
        collection = collect(given, batches)
        assert all(moments.samples == 8 for moments in collection.moments.values())
        assert "of the 2 arrays of each batch the model takes the first 1" in collection.notes


def test_only_the_layers_asked_for_are_looked_at() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    assert list(collect(model, [IMAGES], layers=["1"]).moments) == ["1"]
    with pytest.raises(SelectionError, match="'2' among the 2 found"):
        collect(model, [IMAGES], layers=["2"])


def test_what_cannot_be_collected_says_so() -> None:
    with pytest.raises(SelectionError, match="the nearest is 'eval'"):
        Collection(FIXTURE, "evil")
    with pytest.raises(CannotRunError, match="expected float32, found float64"):
        collect(FIXTURE, [IMAGES.astype(np.float64)])
    with pytest.raises(CannotRunError, match=r"the graph takes 1 \(dark\)"):
        collect(FIXTURE, [{"light": IMAGES, "other": IMAGES}])
    with pytest.raises(CannotRunError, match="holds no arrays"):
        collect(FIXTURE, [()])
    with pytest.raises(CannotRunError, match="expected input"):
        collect(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), [IMAGES])
    program = torch.export.export(nn.BatchNorm2d(3).eval(), (torch.from_numpy(IMAGES),), strict=False)
    with pytest.raises(UnsupportedModelError, match=r"give the nn\.Module"):
        collect(program, [IMAGES])


MEASURE = """
import resource, sys
import numpy as np
from normswap.backends.torch.factory import build as build_module
from normswap.statistics.collect import collect
model = sys.argv[1]
if model == "module":
    import torch
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 3), torch.nn.BatchNorm2d(24)).eval()
rng = np.random.default_rng(0)
batches = (rng.standard_normal((5, 3, 64, 64)).astype(np.float32) for _ in range(int(sys.argv[2]) // 5))
(samples,) = {moments.samples for moments in collect(model, batches, "batch-stat").moments.values()}
assert samples == int(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("model", [str(FIXTURE), "module"], ids=["onnx", "module"])
def test_memory_does_not_grow_with_the_samples(model: str) -> None:
    """450 more samples are 22 MB of input alone, and 180 MB of what the layers are given."""

    def peak(samples: int) -> int:
        argv = [sys.executable, "-c", MEASURE, model, str(samples)]
        return int(subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT).stdout)

    assert peak(500) - peak(50) < 12_000  # KiB
