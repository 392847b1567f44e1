"""recalibrate: statistics held to independent definitions, nothing else changed, and a verification that can fail."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support import ROOT
from support.models.cases import CASES, build, parameter
from torch import nn

import normswap
from normswap.backends import onnx_graph
from normswap.backends.inputs import feeds_of
from normswap.backends.torch import module as torch_module
from normswap.backends.torch.factory import build as build_module
from normswap.errors import CannotRunError, NothingToConvertError, SelectionError, UnsupportedModelError
from normswap.layer import Array, Floats, NormLayer
from normswap.recalibration import recalibrate
from normswap.recalibration.collecting import collected
from normswap.recalibration.options import RecalibrationOptions
from normswap.recalibration.run import recalibrate_with
from normswap.recalibration.selection import Selection, selection
from normswap.statistics.collect import Collection, collect
from normswap.statistics.mismatch import mismatch

IMAGES: Array = np.load(ROOT / "fixtures" / "lowlight_images.npz")["dark"]
BATCHES = [IMAGES[:3], IMAGES[3:8], IMAGES[8:9]]  # unequal on purpose
EQUAL = [IMAGES[:4], IMAGES[4:8], IMAGES[8:12]]
FIXTURE = ROOT / "fixtures" / "lowlight.onnx"
Statistics = dict[str, tuple[Floats, Floats]]


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    return build_module("fixtures.lowlight:Generator", ROOT / "fixtures" / "lowlight.safetensors").eval()


def batch_norms(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)}


def inputs_of(module: nn.Module, batches: Iterable[Array], names: Sequence[str]) -> dict[str, list[Floats]]:
    """What layers are given, (C, elements) for each batch, as the module stands."""
    seen: dict[str, list[Floats]] = {name: [] for name in names}
    layers = batch_norms(module)
    handles = [
        layers[name].register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append(args[0].transpose(0, 1).flatten(1).numpy())
        )
        for name in names
    ]
    with torch.no_grad():
        for batch in batches:
            module(torch.from_numpy(batch).double())
    for handle in handles:
        handle.remove()
    return seen


def trained(generator: nn.Module, batches: Iterable[Array]) -> dict[str, list[Floats]]:
    """What layers are given in training, in float64."""
    module = copy.deepcopy(generator).double()
    for layer in batch_norms(module).values():
        layer.train()
    return inputs_of(module, batches, list(batch_norms(module)))


def pooled(x: list[Floats]) -> tuple[Floats, Floats]:
    every = np.concatenate(x, axis=1)
    return every.mean(axis=1), every.var(axis=1)


def stored(model: Any) -> list[tuple[Floats, Floats]]:
    found = []
    for layer in normswap.find(model):
        assert layer.running_mean is not None and layer.running_var is not None
        found.append((layer.running_mean.astype(np.float64), layer.running_var.astype(np.float64)))
    return found


def close(found: Sequence[tuple[Floats, Floats]], expected: Iterable[tuple[Floats, Floats]]) -> bool:
    """Within what float32 networks are off by: 1e-4 of a standard deviation, 1e-4 of a variance."""
    return all(
        bool(np.all(np.abs(mean - wanted) < 1e-4 * np.sqrt(wanted_var)) and np.all(np.abs(var / wanted_var - 1) < 1e-4))
        for (mean, var), (wanted, wanted_var) in zip(found, expected, strict=True)
    )


def unbiased(x: list[Floats]) -> float:
    count = sum(part.shape[1] for part in x)
    return float(count / (count - 1))


def test_statistics_are_those_of_all_elements_in_training(generator: nn.Module) -> None:
    given = trained(generator, BATCHES).values()
    in_onnx, in_torch = recalibrate(FIXTURE, BATCHES), recalibrate(generator, BATCHES)
    assert in_onnx.ok
    assert in_torch.ok
    assert (in_onnx.samples, in_onnx.variance, in_torch.variance) == (9, "biased", "unbiased")
    assert close(stored(in_onnx.model), [pooled(x) for x in given])
    assert close(stored(in_torch.model), [(pooled(x)[0], pooled(x)[1] * unbiased(x)) for x in given])


WRONG: dict[str, Callable[[list[Floats]], tuple[Floats, Floats]]] = {
    "a mean of variances": lambda x: (pooled(x)[0], np.mean([part.var(axis=1) for part in x], axis=0)),
    "batches weighed alike": lambda x: (np.mean([part.mean(axis=1) for part in x], axis=0), pooled(x)[1]),
    "unbiased": lambda x: (pooled(x)[0], pooled(x)[1] * unbiased(x)),
    "a layer forgotten": lambda x: (np.zeros(len(x[0])), np.ones(len(x[0]))),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_comparison_tells_other_definitions_apart(name: str, generator: nn.Module) -> None:
    given = trained(generator, BATCHES).values()
    assert not close(stored(recalibrate(FIXTURE, BATCHES).model), [WRONG[name](x) for x in given])


def test_the_comparison_tells_inputs_in_eval_mode_apart(generator: nn.Module) -> None:
    module = copy.deepcopy(generator).double()
    given = inputs_of(module, BATCHES, list(batch_norms(module))).values()
    assert not close(stored(recalibrate(FIXTURE, BATCHES).model), [pooled(x) for x in given])


def test_old_statistics_play_no_part(generator: nn.Module) -> None:
    shifted = copy.deepcopy(generator)
    for layer in batch_norms(shifted).values():
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean += 3
        layer.running_var *= 20
    before, after = recalibrate(generator, BATCHES), recalibrate(shifted, BATCHES)
    for (mean, var), (other, other_var) in zip(stored(before.model), stored(after.model), strict=True):
        assert np.array_equal(mean, other)
        assert np.array_equal(var, other_var)
    assert min(moved.shift for moved in after.moved) > 0.5
    assert max(moved.most for moved in after.moved) < 1


def test_agrees_with_fvcore(generator: nn.Module) -> None:
    """Which weighs unequal batches as we do, and stores the biased variance also in torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compiles what torch calls deprecated
        import fvcore.nn
    module = copy.deepcopy(generator).double()
    for layer in batch_norms(module).values():
        layer.train()
    fvcore.nn.update_bn_stats(module, [torch.from_numpy(batch).double() for batch in BATCHES], len(BATCHES))
    assert close(stored(recalibrate(FIXTURE, BATCHES).model), stored(module))
    ours = stored(recalibrate(generator, BATCHES).model)
    counts = [unbiased(x) for x in trained(generator, BATCHES).values()]
    assert close(ours, [(mean, var * count) for (mean, var), count in zip(stored(module), counts, strict=True)])
    assert not close(ours, stored(module))


def test_agrees_with_update_bn_on_one_batch_and_not_on_several(generator: nn.Module) -> None:
    """Torch averages the unbiased variances of batches, each batch counting the same."""

    def updated(batches: list[Array]) -> list[tuple[Floats, Floats]]:
        module = copy.deepcopy(generator).double()
        torch.optim.swa_utils.update_bn([torch.from_numpy(batch).double() for batch in batches], module)
        return stored(module)

    whole = [np.concatenate(BATCHES)]
    assert close(stored(recalibrate(generator, whole).model), updated(whole))
    for batches in (EQUAL, BATCHES):
        given = trained(generator, batches).values()
        expected = [
            (
                np.mean([part.mean(axis=1) for part in x], axis=0),
                np.mean([part.var(axis=1, ddof=1) for part in x], axis=0),
            )
            for x in given
        ]
        assert close(updated(batches), expected)
        assert not close(stored(recalibrate(generator, batches).model), updated(batches))
    means = [mean for mean, _ in stored(recalibrate(generator, EQUAL).model)]
    assert close(
        [(mean, np.ones_like(mean)) for mean in means], [(mean, np.ones_like(mean)) for mean, _ in updated(EQUAL)]
    )


def test_sequential_gives_each_layer_what_it_is_given_in_eval_mode(generator: nn.Module) -> None:
    module = copy.deepcopy(generator).double()
    for name, layer in batch_norms(module).items():  # in the order in which they run
        mean, var = pooled(inputs_of(module, BATCHES, [name])[name])
        layer.running_mean, layer.running_var = torch.from_numpy(mean), torch.from_numpy(var)
    in_onnx = recalibrate(FIXTURE, BATCHES, sequential=True)
    assert (in_onnx.ok, in_onnx.sequential, in_onnx.passes) == (True, True, 9)
    assert close(stored(in_onnx.model), stored(module))
    assert not close(stored(recalibrate(FIXTURE, BATCHES).model), stored(module))
    in_torch = recalibrate(generator, BATCHES, sequential=True)
    assert in_torch.ok
    seen = collect(in_torch.model, BATCHES, "eval")
    for moments, (mean, var) in zip(seen.moments.values(), stored(in_torch.model), strict=True):
        assert mismatch(moments, mean, var).staleness.max() < 1e-3


def test_sequential_takes_the_layers_in_the_order_in_which_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.last(torch.relu(self.first(x)))
            return y

    found = recalibrate(Backwards().eval(), BATCHES, sequential=True)
    seen = collect(found.model, BATCHES)
    (last, var), _ = stored(found.model)
    assert list(seen.moments) == ["first", "last"]
    np.testing.assert_allclose(last, seen.moments["last"].pooled_mean, rtol=1e-5)
    np.testing.assert_allclose(var, seen.moments["last"].unbiased_var, rtol=1e-5)
    unsorted = recalibrate(
        build(CASES["unsorted nodes"].text), [{"x": np.ones((2, 4, 6, 5), np.float32)}], sequential=True
    )
    assert unsorted.ok


def test_sequential_needs_batches_that_can_be_had_again() -> None:
    with pytest.raises(SelectionError, match="can be read only once"):
        recalibrate(FIXTURE, iter(BATCHES), sequential=True)


def test_momentum_blends_as_torch_does(generator: nn.Module) -> None:
    """The update that torch's own layer makes of one batch."""
    module = copy.deepcopy(generator).double()
    for layer in batch_norms(module).values():
        layer.train()
        layer.momentum = 0.3
    with torch.no_grad():
        module(torch.from_numpy(IMAGES[:6]).double())
    found = recalibrate(generator, [IMAGES[:6]], momentum=0.3)
    assert found.ok
    assert close(stored(found.model), stored(module))
    assert "0.7 of the old statistics and 0.3 of the new" in " ".join(found.notes)
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(SelectionError, match="expected a share"):
            recalibrate(generator, BATCHES, momentum=wrong)


def test_only_what_is_selected_changes_and_keeps_company_as_it_is(generator: nn.Module) -> None:
    """The layers before one that is recalibrated alone stay in eval mode, in which they stay later too."""
    module = copy.deepcopy(generator).double()
    batch_norms(module)["down.0.1.1"].train()
    expected = pooled(inputs_of(module, BATCHES, ["down.0.1.1"])["down.0.1.1"])
    found = recalibrate(FIXTURE, BATCHES, only=["/down.0/*"])
    assert found.ok
    assert [moved.name for moved in found.moved] == ["/down.0/down.0.1/down.0.1.1/BatchNormalization_output_0"]
    assert len(found.left) == 8
    before, after = stored(FIXTURE), stored(found.model)
    assert close([after[1]], [expected])
    changed = [not np.array_equal(one[0], other[0]) for one, other in zip(before, after, strict=True)]
    assert changed == [index == 1 for index in range(9)]
    with pytest.raises(SelectionError, match="no BatchNorm layer matches"):
        recalibrate(FIXTURE, BATCHES, only=["nothing"])


def test_the_callers_module_is_left_as_it_was(generator: nn.Module) -> None:
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    found = recalibrate(generator, [(torch.from_numpy(batch), torch.zeros(len(batch))) for batch in BATCHES])
    assert found.ok
    assert found.model is not generator
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    after = found.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}


# --- what ONNX graphs store statistics in ---


def recalibrated_case(text: str, **options: Any) -> tuple[onnx.ModelProto, normswap.Recalibration]:
    proto = build(text)
    model = onnx_graph.load(proto)
    feed = feeds_of(onnx_graph, model, None, {}, 3, 6)[0].arrays
    return proto, recalibrate(proto, [feed], **options)


def tensors(proto: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


LEFT = {
    "parameters given at run time": "given by the caller at run time",
    "If and Loop, parameters in outer scopes": "in a subgraph",
    "local function, called three times": "in a local function",
    "one function at two ranks": "in a local function",
    "computed statistics": "its role is batch-stat",
    "computed statistics, unbiased": "its role is unknown",
    "weight standardisation": "its role is weight",
    "instance in disguise": "its role is instance",
}


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.runs and not case.shapes and n not in LEFT])
@pytest.mark.parametrize("sequential", [False, True], ids=["one pass", "sequential"])
def test_every_other_small_graph_is_recalibrated(name: str, sequential: bool) -> None:
    proto, found = recalibrated_case(CASES[name].text, sequential=sequential)
    assert found.ok, found.to_text()
    assert {moved.name for moved in found.moved} | found.left.keys() == CASES[name].roles.keys()
    onnx_graph.load(found.model)
    mode = "eval" if sequential else "batch-stat"
    feed = feeds_of(onnx_graph, onnx_graph.load(proto), None, {}, 3, 6)[0].arrays
    names = [moved.name for moved in found.moved]
    # Under its own new statistics, or those of the batch, every layer is given what it was.
    seen = Collection(found.model, mode, switch=names)
    seen.add(feed)
    for layer in normswap.find(found.model):
        if layer.name in names:
            assert layer.running_mean is not None and layer.running_var is not None
            rtol = 2e-3 if layer.running_mean.dtype == np.float16 else 1e-4
            moments = seen.moments[layer.name]
            std = np.sqrt(moments.pooled_var + layer.eps)
            assert np.all(np.abs(layer.running_mean - moments.pooled_mean) <= rtol * (std + np.abs(moments.mean)))
            np.testing.assert_allclose(layer.running_var, moments.pooled_var, rtol=rtol)


@pytest.mark.parametrize("name", LEFT)
def test_layers_that_cannot_be_are_left_with_the_reason(name: str) -> None:
    with pytest.raises(NothingToConvertError, match=LEFT[name]):
        recalibrated_case(CASES[name].text)


def test_shared_tensors_are_split_and_other_readers_keep_theirs() -> None:
    before, found = recalibrated_case(CASES["shared parameters"].text)
    assert [moved.name for moved in found.moved] == ["y1", "y2"]
    after = tensors(found.model.proto)
    assert {"m", "v"} & after.keys() == {"v"}, "v is read by another operator too, m by nobody any more"
    assert np.array_equal(after["v"], parameter("v"))
    assert {name for name in after if name not in tensors(before)} == {
        f"{y}/running_{word}" for y in ("y1", "y2") for word in ("mean", "var")
    }


def test_tensors_of_their_own_change_in_place() -> None:
    before, found = recalibrated_case(CASES["opset 17, training_mode=0"].text)
    assert tensors(found.model.proto).keys() == tensors(before).keys()
    found.model.proto.graph.ClearField("initializer")
    before.graph.ClearField("initializer")
    assert found.model.proto == before


def test_old_graphs_whose_initializers_are_inputs_get_no_new_input() -> None:
    before, found = recalibrated_case(CASES["initializers that are graph inputs"].text)
    assert found.model.proto.graph.input == before.graph.input
    assert tensors(found.model.proto).keys() == tensors(before).keys()
    shared = build(
        CASES["initializers that are graph inputs"]
        .text.replace("{ y =", "{ q = BatchNormalization<epsilon=0.01>(x, sg, bg, mg, vg) y =")
        .replace("0.01>(x, sg, bg, mg, vg) }", "0.01>(q, sg, bg, mg, vg) }")
    )
    with pytest.raises(NothingToConvertError, match="something else reads too"):
        recalibrate(shared, [{"x": np.ones((2, 4, 6, 5), np.float32)}])


def test_old_graphs_get_constants_where_a_tensor_is_split_off() -> None:
    text = CASES["shared parameters"].text.replace("<ir_version: 8,", "<ir_version: 3,").replace(": 17]", ": 9]")
    before, found = recalibrated_case(text)
    assert found.ok, found.to_text()
    made = [node for node in found.model.proto.graph.node if node.op_type == "Constant"]
    assert len(made) == 4
    assert tensors(found.model.proto).keys() <= tensors(before).keys()


def test_external_data_stay_as_they_are(tmp_path: Path) -> None:
    proto = build(CASES["opset 17, training_mode=0"].text)
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)
    out = tmp_path / "new.onnx"
    found = recalibrate(tmp_path / "model.onnx", [{"x": np.ones((2, 4, 6, 5), np.float32)}], output=out)
    assert found.written == out
    after, before = tensors(onnx.load(out)), tensors(onnx.load(tmp_path / "model.onnx"))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"m", "v"}


def test_what_does_not_fit_is_not_stored() -> None:
    big = np.full((2, 4, 6, 5), 400, np.float16)
    big[0] *= -1
    with pytest.raises(CannotRunError, match="too large for float16"):
        recalibrate(build(CASES["float16"].text.replace("t = Relu(x)", "t = Identity(x)")), [{"x": big}])
    bad = IMAGES[:2].copy()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(CannotRunError, match="what the layer is given is not"):
        recalibrate(FIXTURE, [bad])
    with pytest.raises(CannotRunError, match="single element"):
        recalibrate(nn.BatchNorm2d(3).eval(), [np.ones((1, 3, 1, 1), np.float32)])
    broken = nn.BatchNorm2d(3).eval()
    broken.running_var = torch.full((3,), torch.nan)
    with pytest.raises(CannotRunError, match="leave out the momentum"):
        recalibrate(broken, [IMAGES], momentum=0.5)
    assert recalibrate(broken, [IMAGES]).ok


def test_models_that_cannot_be_recalibrated_say_so(generator: nn.Module) -> None:
    with pytest.raises(NothingToConvertError, match="none of 0"):
        recalibrate(nn.Conv2d(3, 3, 1), [IMAGES])
    with pytest.raises(NothingToConvertError, match="no batch reached any of the 9 layers"):
        recalibrate(generator, [])
    with pytest.raises(UnsupportedModelError, match="exported program"):
        recalibrate(torch.export.export(generator, (torch.from_numpy(IMAGES),), strict=False), BATCHES)
    shared = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    shared[1].running_mean = shared[0].running_mean
    with pytest.raises(NothingToConvertError, match="shares memory"):
        recalibrate(shared, [IMAGES])


def test_one_layer_under_two_names() -> None:
    layer = nn.BatchNorm2d(3)
    model = nn.Sequential(layer, nn.ReLU(), layer).eval()
    for sequential in (False, True):
        found = recalibrate(model, [IMAGES], sequential=sequential)
        assert found.ok
        assert [moved.name for moved in found.moved] == ["0", "2"]
        assert found.model[0] is found.model[2]
    with pytest.raises(SelectionError, match="select both or none"):
        recalibrate(model, [IMAGES], only=["0"])


# --- a verification that can fail ---


def sabotaged(chosen: Selection, spoil: Callable[[Any, Statistics], Any]) -> Selection:
    """The same, with a backend that spoils what it makes."""
    backend: Any = SimpleNamespace(**vars(chosen.backend))
    backend.recalibrated = spoil
    return replace(chosen, backend=backend)


def changes_a_weight(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    tensor = next(t for t in changed.proto.graph.initializer if len(t.dims) == 4)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.view(np.int32).flat[0] ^= 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return changed


def changes_eps(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    node = next(n for n in changed.proto.graph.node if n.op_type == "BatchNormalization")
    next(a for a in node.attribute if a.name == "epsilon").f *= 1.01
    return changed


def changes_scale_of_a_layer(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    node = next(n for n in changed.proto.graph.node if n.op_type == "BatchNormalization")
    node.input[1] = node.input[2]
    return changed


def drops_a_layer(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    node = next(n for n in changed.proto.graph.node if n.op_type == "BatchNormalization")
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]
    return changed


def forgets_a_layer(model: Any, statistics: Statistics) -> Any:
    return onnx_graph.recalibrated(model, dict(list(statistics.items())[1:]))


def swaps_mean_and_variance(model: Any, statistics: Statistics) -> Any:
    return onnx_graph.recalibrated(model, {name: (var, mean) for name, (mean, var) in statistics.items()})


def stores_another_variance(model: Any, statistics: Statistics) -> Any:
    return onnx_graph.recalibrated(model, {name: (mean, var * 1.00001) for name, (mean, var) in statistics.items()})


def swaps_two_layers(model: Any, statistics: Statistics) -> Any:
    names = list(statistics)
    return onnx_graph.recalibrated(model, statistics | {names[3]: statistics[names[4]], names[4]: statistics[names[3]]})


def adds_a_tensor(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    changed.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "stowaway"))
    return changed


def adds_metadata(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    changed.proto.metadata_props.add(key="k", value="v")
    return changed


MUTANTS = [
    changes_a_weight,
    changes_eps,
    changes_scale_of_a_layer,
    drops_a_layer,
    forgets_a_layer,
    swaps_mean_and_variance,
    stores_another_variance,
    swaps_two_layers,
    adds_a_tensor,
    adds_metadata,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_wrong_recalibration_fails(mutant: Callable[[Any, Statistics], Any], tmp_path: Path) -> None:
    chosen = selection(FIXTURE)
    seen = collected(chosen, EQUAL)
    wrong = recalibrate_with(sabotaged(chosen, mutant), seen, RecalibrationOptions(output=tmp_path / "out.onnx"))
    assert not wrong.ok
    assert wrong.to_text().splitlines()[-1].startswith("FAIL")
    assert not (tmp_path / "out.onnx").exists()
    assert recalibrate_with(chosen, seen).ok


def changes_a_shared_tensor(model: Any, statistics: Statistics) -> Any:
    """In place, so that the operator that reads it beside gets other values too."""
    changed = onnx_graph.load(copy.deepcopy(model.proto))
    mean, var = statistics["y1"]
    for tensor in changed.proto.graph.initializer:
        if tensor.name in "mv":
            value = mean if tensor.name == "m" else var
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), tensor.name))
    return changed


def reads_another_tensor(model: Any, statistics: Statistics) -> Any:
    changed = onnx_graph.recalibrated(model, statistics)
    changed.proto.graph.node[-1].input[0] = changed.proto.graph.node[-1].input[1]
    return changed


@pytest.mark.parametrize("mutant", [changes_a_shared_tensor, reads_another_tensor], ids=lambda m: m.__name__)
def test_a_wrong_recalibration_of_shared_tensors_fails(mutant: Callable[[Any, Statistics], Any]) -> None:
    chosen = selection(build(CASES["shared parameters"].text))
    seen = collected(chosen, [feeds_of(onnx_graph, chosen.model, None, {}, 0)[0].arrays])
    assert not recalibrate_with(sabotaged(chosen, mutant), seen).ok
    assert recalibrate_with(chosen, seen).ok


def spoils(spoil: Callable[[nn.Module], object], model: Any, statistics: Statistics) -> Any:
    changed = torch_module.recalibrated(model, statistics)
    with torch.no_grad():
        spoil(changed.module)
    return changed


MODULE_MUTANTS: dict[str, Callable[[nn.Module], object]] = {
    "a weight": lambda module: next(module.parameters()).view(-1)[0].add_(1e-6),
    "a counter": lambda module: batch_norms(module)["stem.1"].num_batches_tracked.add_(1),  # type: ignore[union-attr]
    "eps": lambda module: setattr(batch_norms(module)["stem.1"], "eps", 1e-4),
    "momentum": lambda module: setattr(batch_norms(module)["stem.1"], "momentum", 0.2),
    "the mode": lambda module: module.train(),
    "a mean": lambda module: batch_norms(module)["stem.1"].running_mean.add_(1e-6),  # type: ignore[union-attr]
    "a type": lambda module: batch_norms(module)["stem.1"].register_buffer(
        "running_mean", batch_norms(module)["stem.1"].running_mean.double()  # type: ignore[union-attr]
    ),
    "a hook": lambda module: module.register_forward_hook(lambda *_: None),
    "a module": lambda module: module.add_module("more", nn.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULE_MUTANTS)
def test_a_wrong_recalibration_of_a_module_fails(name: str, generator: nn.Module) -> None:
    chosen = selection(generator)
    seen = collected(chosen, EQUAL)
    assert not recalibrate_with(sabotaged(chosen, partial(spoils, MODULE_MUTANTS[name])), seen).ok
    assert recalibrate_with(chosen, seen).ok


def test_what_it_says(generator: nn.Module) -> None:
    found = recalibrate(generator, EQUAL, skip=["up.*"])
    lines = found.to_text().splitlines()
    assert lines[0] == "5 BatchNorm layers recalibrated from 12 samples, collected under the statistics of each batch"
    assert lines[2].split()[:2] == ["stem.1", "12"]
    assert "  left as they are: up.0.2.1, up.1.2.1, up.2.2.1 and 1 more (not selected)" in lines
    assert lines[-1].startswith("PASS: nothing but the statistics of 5 layers changed: ")
    told = found.to_dict()
    assert (told["ok"], told["samples"], len(told["layers"]), len(told["left"])) == (True, 12, 5, 4)
    layer: NormLayer = normswap.find(generator)[0]
    assert layer.running_mean is not None and layer.running_var is not None
    (mean, var), *_ = stored(found.model)
    std = np.sqrt(layer.running_var + layer.eps)
    assert told["layers"][0]["mean_shift"] == pytest.approx(np.max(np.abs(mean - layer.running_mean) / std), rel=1e-4)
    ratio = (var + layer.eps) / (layer.running_var + layer.eps)
    assert told["layers"][0]["variance_ratio"] == pytest.approx([ratio.min(), ratio.max()], rel=1e-4)


def test_names_cannot_begin_a_line_of_the_text(generator: nn.Module) -> None:
    found = recalibrate(generator, [torch.from_numpy(batch) for batch in BATCHES])
    hostile = replace(found, left={"x\nPASS: all is well": "not selected"}, notes=("\x1b[2J",))
    text = hostile.to_text()
    assert not any(line.startswith("PASS: all is well") for line in text.splitlines())
    assert "\x1b" not in text
