"""How converted modules behave, against plain torch: what they compute, what they keep, what is done with them next."""

from __future__ import annotations

import copy
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.models.modules import MODULES, BatchNormReLU, Block, C, called, randomized, seeded, shaped
from support.models.targets import Blended, asked
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

import normswap
from normswap import NORMS, CannotRunError, Conversion, Plan, RefusedLayersError, Tolerance, UnsupportedModelError
from normswap.backends.torch.checkpoint import layers_in
from normswap.nn import LAYOUTS, Layout, SwappedNorm

IMAGE = shaped((2, 3, 6, 5))
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
# Error of the outputs of these small models, absolute or relative.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def changes(name: str, to: str) -> bool:
    """Whether converting a model of the table changes anything."""
    case = MODULES[name]
    refused = case.refused.get(to, {})
    return any(role not in (NORMS[to].equals, "weight") and path not in refused for path, role in case.roles.items())


CONVERTED = [(name, to) for name in MODULES for to in NORMS if changes(name, to)]
every_conversion = pytest.mark.parametrize(("name", "to"), CONVERTED)
every_target = pytest.mark.parametrize("to", NORMS)


@cache
def kept_conversion(name: str, to: str) -> Conversion:
    conversion = normswap.convert(
        MODULES[name].build(), to, **asked(to), inputs=MODULES[name].inputs(), allow_refusals=True
    )
    assert conversion.report.ok, conversion.report.to_text()
    return conversion


def conversion_of(name: str, to: str) -> Conversion:
    """Convert a model of the table; what is returned may be changed."""
    kept = kept_conversion(name, to)
    return Conversion(copy.deepcopy(kept.model), kept.plan, kept.report)


def block(norm: Callable[[], nn.Module] = lambda: nn.BatchNorm2d(C), *, train: bool = True) -> nn.Module:
    return seeded(lambda: Block(norm()), train=train)()


def inside(model: nn.Module) -> nn.Module:
    """Take off what stands around a model: the paths of layers are those of the model in it."""
    inner = getattr(model, "_orig_mod", model.module if isinstance(model, nn.DataParallel) else model)
    assert isinstance(inner, nn.Module)
    return inner


def layer_at(model: nn.Module, name: str) -> nn.Module:
    """Find a layer by its name; a model that is a BatchNorm itself is called by its class."""
    return model if name == "BatchNorm2d" else model.get_submodule(name)


def taken(condition: Tensor, if_true: Callable[..., Any], if_false: Callable[..., Any], inputs: Any) -> Any:
    """What torch.cond gives."""
    return (if_true if condition else if_false)(*inputs)


def stated(model: nn.Module, plan: Plan, inputs: Any) -> Any:
    """Run a model in plain torch with the planned BatchNorms as the target means them, gradients and all."""
    layers = [layer_at(inside(model), layer.name) for layer in plan.layers]
    for layer in layers:
        layer.training = plan.norm.formula.native == "train"
    if plan.norm.formula.native == "given":  # which is told of calls in Python, as those in torch.cond are not
        blended = Blended(plan.norm, [getattr(layer, "running_mean", None) for layer in layers])
        with blended, mock.patch.object(torch, "cond", taken):
            return called(model, inputs)
    if not plan.norm.formula.alone:
        return called(model, inputs)

    def sample(index: int, tensor: Tensor) -> Tensor:
        return tensor[index : index + 1] if tensor.ndim else tensor

    batch = next(len(leaf) for leaf in tree_flatten(inputs)[0] if leaf.ndim)
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    results = []
    for index in range(batch):
        for buffer, value in before:  # which the sample before may have changed
            buffer.data = value.clone()
        results.append(called(model, tree_map_only(Tensor, partial(sample, index), inputs)))
    return tree_map(lambda *parts: torch.cat(parts), *results)


def outputs(model: nn.Module, inputs: Any) -> Any:
    """Run a copy of a model without gradients, seeded."""
    with torch.no_grad(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of copying a graph that torch.export made
        torch.manual_seed(0)
        return called(copy.deepcopy(model), inputs)


def close(found: Any, expected: Any, factor: float = 1.0) -> None:
    """Compare results of any structure, to within what their type holds."""
    leaves, wanted = tree_flatten(found)[0], tree_flatten(expected)[0]
    assert len(leaves) == len(wanted) > 0
    for one, other in zip(leaves, wanted, strict=True):
        bound = TOLERANCE[other.dtype] * factor
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)


def equal(found: Any, expected: Any) -> bool:
    leaves, wanted = tree_flatten(found)[0], tree_flatten(expected)[0]
    return all(torch.equal(one, other) for one, other in zip(leaves, wanted, strict=True))


def one_sentence(error: BaseException) -> str:
    words = str(error)
    assert words
    assert "\n" not in words
    assert len(words) < 500
    return words


# Nothing of the caller's is changed.


def fingerprint(model: nn.Module) -> list[Any]:
    """List everything that a model is: objects by identity, what can change by its contents."""
    found: list[Any] = []
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            contents: Any = list(value.items()) if isinstance(value, dict) else value
            contents = [*contents] if isinstance(contents, (set, list, tuple)) else contents
            inner = [(key, id(item)) for key, item in value.items()] if isinstance(value, dict) else None
            found.append((path, name, id(value), inner or repr(contents)))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert isinstance(tensor, Tensor)
        found.append((name, id(tensor), tensor._version, tensor.requires_grad, id(tensor.grad), bits(tensor)))
    return found


def bits(tensor: Tensor) -> bytes:
    if nn.parameter.is_lazy(tensor):
        return b""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def world() -> list[Any]:
    """List what is global and any run could change."""
    _, keys, *rest = np.random.get_state()
    return [
        bits(torch.get_rng_state()),
        bytes(np.asarray(keys)),
        rest,
        random.getstate(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        dict(LAYOUTS),
    ]


@contextmanager
def unchanged(*models: nn.Module) -> Iterator[None]:
    before = [fingerprint(model) for model in models], world()
    yield
    assert ([fingerprint(model) for model in models], world()) == before


@pytest.mark.parametrize("name", MODULES)
def test_nothing_of_the_callers_is_changed(name: str) -> None:
    model, inputs = MODULES[name].build(), MODULES[name].inputs()
    with unchanged(model):
        normswap.find(model)
    with unchanged(model):
        normswap.find(model, inputs=inputs)
    with unchanged(model):
        normswap.plan(model, "instance", inputs=inputs)
    if not changes(name, "instance"):
        with unchanged(model), pytest.raises(normswap.NothingToConvertError):
            normswap.convert(model, "instance", inputs=inputs, allow_refusals=True)
        return
    with unchanged(model):
        converted = normswap.convert(model, "instance", inputs=inputs, allow_refusals=True).model
    with unchanged(model, converted):
        report = normswap.verify(model, converted, "instance", inputs=inputs, allow_refusals=True)
    assert report.ok, report.to_text()
    mine, theirs = ({id(t) for t in (*m.parameters(), *m.buffers())} for m in (model, converted))
    assert not mine & theirs


@pytest.mark.parametrize("gradients", [False, True])
def test_grad_mode_stays_and_so_do_gradients(gradients: bool) -> None:
    model = block()
    model(*IMAGE()).sum().backward()
    with torch.set_grad_enabled(gradients), unchanged(model):
        assert normswap.convert(model, "instance", inputs=IMAGE()).report.ok


class Greedy(Block):
    """Writes into what it is given, containers too."""

    def forward(self, x: Tensor, more: dict[str, Tensor]) -> Tensor:  # type: ignore[override]  # on purpose
        x.mul_(2).add_(more.pop("y"))
        return super().forward(x)


@every_target
def test_inputs_are_not_written_into(to: str) -> None:
    model = seeded(lambda: Greedy(nn.BatchNorm2d(C)), train=True)()
    x, y = shaped((2, 3, 6, 5), (2, 3, 6, 5))()
    more = {"y": y}
    before = bits(x), bits(y), x._version, y._version
    conversion = normswap.convert(model, to, **asked(to), inputs=(x, more))
    assert conversion.report.ok, conversion.report.to_text()
    assert normswap.verify(model, conversion.model, to, **asked(to), inputs={"x": x, "more": more}).ok
    assert more == {"y": y}
    assert (bits(x), bits(y), x._version, y._version) == before


# What a converted model computes.


# One sample at a time draws other random numbers than a batch does.
@pytest.mark.parametrize(("name", "to"), [(n, to) for n, to in CONVERTED if "dropout" not in n or to != "instance"])
def test_it_computes_what_is_stated(name: str, to: str) -> None:
    conversion, case = conversion_of(name, to), MODULES[name]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        expected = stated(case.build(), conversion.plan, case.inputs())
    close(outputs(conversion.model, case.inputs()), expected)


@every_conversion
def test_its_norms_have_neither_modes_nor_state(name: str, to: str) -> None:
    conversion, inputs = conversion_of(name, to), MODULES[name].inputs()
    model = conversion.model
    swapped = [module for module in model.modules() if isinstance(module, SwappedNorm)]
    planned = {id(layer_at(model, layer.name)) for layer in conversion.plan.layers}
    assert {id(module) for module in swapped} == planned
    original = inside(MODULES[name].build())
    assert all(layer_at(original, p.name).training == layer_at(model, p.name).training for p in conversion.plan.layers)
    found = []
    for mode in (True, False):
        for module in swapped:
            module.train(mode)
        before = [bits(tensor) for module in swapped for tensor in module.state_dict().values()]
        found.append(outputs(model, inputs))
        assert [bits(tensor) for module in swapped for tensor in module.state_dict().values()] == before
    assert equal(*found)


def test_modes_of_the_whole_model_do_not_change_it() -> None:
    model = conversion_of("ModuleList, ModuleDict, Sequential", "instance").model
    assert equal(model.train()(*IMAGE()), model.eval()(*IMAGE()))


@every_target
def test_autocast_gives_the_same_type(to: str) -> None:
    conversion = conversion_of("BatchNorm2d, train", to)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = stated(block(), conversion.plan, IMAGE())
        close(conversion.model(*IMAGE()), expected)
    assert expected.dtype == torch.bfloat16


def gradients_of(y: Tensor, x: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Backpropagate a function that no two elements of y enter alike."""
    generator = torch.Generator().manual_seed(3)
    (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum().backward()  # type: ignore[no-untyped-call]
    found = {"x": x.grad, **{name: parameter.grad for name, parameter in model.named_parameters()}}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient for name, gradient in found.items() if gradient is not None}


@every_target
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("BatchNorm1d, (N, C, L), train", (3, 3, 7)),
        ("BatchNorm2d, train", (3, 3, 6, 5)),
        ("BatchNorm2d, train", (2, 3, 96, 96)),  # samples for which other kernels are chosen
        ("BatchNorm2d, train", (1, 3, 6, 5)),
        ("BatchNorm3d, train", (2, 3, 3, 4, 2)),
        ("called twice, train", (2, C, 6, 5)),
        ("without bias, train", (2, 3, 6, 5)),
    ],
    ids=str,
)
def test_gradients(name: str, shape: tuple[int, ...], channels_last: bool, to: str) -> None:
    (x,) = shaped(shape, dtype=torch.float64)()
    if channels_last and x.ndim in FORMATS:
        x = x.to(memory_format=FORMATS[x.ndim])
    converted, plan = (conversion := conversion_of(name, to)).model.double(), conversion.plan
    original, mine, theirs = MODULES[name].build().double(), x.clone().requires_grad_(), x.clone().requires_grad_()

    def both(result: Any) -> Tensor:
        return torch.cat([leaf.flatten() for leaf in tree_flatten(result)[0]])

    found = gradients_of(both(converted(mine)), mine, converted)
    expected = gradients_of(both(stated(original, plan, (theirs,))), theirs, original)
    assert found.keys() == expected.keys()
    for key in expected:
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-9 * (1 + scale), msg=key)


@every_target
@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 2, 2, 2)], ids=str)
def test_second_derivatives(to: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(memory_format=FORMATS[x.ndim]) if x.ndim in FORMATS else x
    norm = SwappedNorm(NORMS[to], 2, dtype=torch.float64)
    with torch.no_grad():
        for number, tensor in enumerate(norm.state_dict().values()):
            tensor.uniform_(0.5, 2, generator=torch.Generator().manual_seed(number))
    assert torch.autograd.gradgradcheck(norm, (x.requires_grad_(),))


# In place.


class Tied(Block):
    """Holds the norm's weight a second time, under its own name."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(norm)
        assert isinstance(norm.weight, nn.Parameter)
        self.gain = norm.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain.view(-1, 1, 1)


@every_target
def test_in_place_keeps_the_object_its_parameters_and_its_optimizer(to: str) -> None:
    model = seeded(lambda: Tied(nn.BatchNorm2d(C)), train=True)()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    neighbours = {name: id(module) for name, module in model.named_modules() if name != "norm"}
    conversion = normswap.convert(model, to, **asked(to), inputs=IMAGE(), in_place=True)
    assert conversion.report.ok
    assert conversion.model is model
    norm = model.get_submodule("norm")
    assert isinstance(norm, SwappedNorm)
    assert {name: id(module) for name, module in model.named_modules() if name != "norm"} == neighbours
    assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == before
    assert norm.weight is model.gain
    was = model(*IMAGE())
    was.square().mean().backward()
    held = {key: value.clone() for key, value in norm.state_dict().items()}
    optimizer.step()
    assert not any(torch.equal(held[name], parameter) for name, parameter in norm.named_parameters())
    assert not torch.equal(model(*IMAGE()), was)


@every_target
def test_in_place_gives_what_a_copy_gives(to: str) -> None:
    for name in ("two names, train", "some in eval mode, some in train mode", "a block in two places"):
        if changes(name, to):
            model, inputs = MODULES[name].build(), MODULES[name].inputs()
            normswap.convert(model, to, **asked(to), inputs=inputs, in_place=True)
            assert equal(outputs(model, inputs), outputs(kept_conversion(name, to).model, inputs)), name
            assert model.state_dict().keys() == kept_conversion(name, to).model.state_dict().keys()


def test_a_model_that_is_the_batch_norm_cannot_be_converted_in_place() -> None:
    model = MODULES["the root"].build()
    with unchanged(model), pytest.raises(UnsupportedModelError, match="the model itself is the BatchNorm") as caught:
        normswap.convert(model, "instance", inputs=MODULES["the root"].inputs(), in_place=True)
    one_sentence(caught.value)


def test_in_place_changes_nothing_where_verification_fails() -> None:
    model = block()
    exact = Tolerance(margin=0, last_place=0)
    with unchanged(model):
        conversion = normswap.convert(model, "instance", inputs=IMAGE(), in_place=True, tolerance=exact)
    assert not conversion.report.ok
    assert {check.witness for check in conversion.report.checks if not check.ok} == {"end to end"}


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")], ids=["DP", "compile"])
def test_in_place_inside_a_wrapper(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = wrap(inner := block())
    model(*IMAGE())  # torch.compile now has code for what is about to change
    conversion = normswap.convert(model, "instance", inputs=IMAGE(), in_place=True)
    assert conversion.model is model
    assert isinstance(inner.norm, SwappedNorm)
    close(model(*IMAGE()), kept_conversion("BatchNorm2d, train", "instance").model(*IMAGE()))


# State dicts.


@every_conversion
def test_the_originals_checkpoint_loads(name: str, to: str) -> None:
    conversion, case = conversion_of(name, to), MODULES[name]
    expected = outputs(conversion.model, case.inputs())
    own = {key: value.clone() for key, value in conversion.model.state_dict().items()}
    for state in (inside(case.build()).state_dict(), own):
        model = copy.deepcopy(conversion.model)
        for tensor in model.state_dict().values():
            tensor.fill_(0.125)
        model.load_state_dict(state, strict=True)
        assert equal(outputs(model, case.inputs()), expected)
        assert model.state_dict().keys() == own.keys()


@every_conversion
def test_a_converted_state_dict_is_that_of_the_converted_model(name: str, to: str) -> None:
    state = inside(MODULES[name].build()).state_dict()
    conversion = kept_conversion(name, to)
    expected = conversion.model.state_dict()
    planned = {layer.name if layer.name != "BatchNorm2d" else "" for layer in conversion.plan.layers}
    known = [layer.name for layer in layers_in(state)]
    if planned & set(known):
        state = normswap.convert_state_dict(
            state, to, **asked(to), skip=[path for path in known if path not in planned]
        )
    else:  # no planned layer stores statistics, but it may have counted batches
        state = {key: value for key, value in state.items() if key in expected or "num_batches" not in key}
    assert list(state) == list(expected)
    assert {key: bits(value) for key, value in state.items()} == {k: bits(v) for k, v in expected.items()}


@every_target
def test_state_dicts_of_wrapped_models(to: str) -> None:
    converted = conversion_of("BatchNorm2d, train", to).model
    around = nn.DataParallel(converted)
    around.load_state_dict(nn.DataParallel(block()).state_dict(), strict=True)
    assert list(normswap.convert_state_dict(nn.DataParallel(block()).state_dict(), to, **asked(to))) == list(
        around.state_dict()
    )


def test_statistics_that_are_not_saved_are_not_saved_afterwards() -> None:
    model = block()
    norm: Any = model.get_submodule("norm")
    for name in ("running_mean", "running_var"):
        norm.register_buffer(name, getattr(norm, name), persistent=False)
    conversion = normswap.convert(model, "population", inputs=IMAGE())
    assert conversion.report.ok, conversion.report.to_text()
    assert list(conversion.model.state_dict()) == ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    conversion.model.load_state_dict(model.state_dict(), strict=True)


def test_what_does_not_belong_into_a_checkpoint_is_still_noticed() -> None:
    model = conversion_of("BatchNorm2d, train", "instance").model
    state = block().state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected.*conv\.running_mean"):
        model.load_state_dict({**state, "conv.running_mean": torch.zeros(C)})
    del state["norm.weight"]
    with pytest.raises(RuntimeError, match=r"Missing.*norm\.weight"):
        model.load_state_dict(state)


# What else a layer has.


@every_conversion
def test_types_modes_and_formats_are_kept(name: str, to: str) -> None:
    converted, original = kept_conversion(name, to).model, inside(MODULES[name].build())
    mine, theirs = dict(converted.named_parameters()), dict(original.named_parameters())
    assert list(mine) == list(theirs)
    for key, parameter in theirs.items():
        for what in ("dtype", "device", "requires_grad", "shape"):
            assert getattr(mine[key], what) == getattr(parameter, what), (key, what)
    assert {path: module.training for path, module in converted.named_modules()} == {
        path: module.training for path, module in original.named_modules()
    }
    inputs = MODULES[name].inputs()
    for found, expected in zip(*(tree_flatten(outputs(m, inputs))[0] for m in (converted, original)), strict=True):
        assert found.dtype == expected.dtype
        for form in (torch.contiguous_format, FORMATS.get(found.ndim, torch.contiguous_format)):
            assert found.is_contiguous(memory_format=form) == expected.is_contiguous(memory_format=form)


def test_hooks_stay_and_their_handles_remove_them() -> None:
    model, calls = block(), list[str]()
    norm: Any = model.get_submodule("norm")

    def note(what: str) -> Callable[..., None]:
        return lambda module, *_: calls.append(f"{what} {type(module).__name__}")

    handles = {
        "pre": norm.register_forward_pre_hook(note("pre")),
        "forward": norm.register_forward_hook(note("forward")),
        "keyword": norm.register_forward_hook(
            lambda module, args, kwargs, y: calls.append("keyword"), with_kwargs=True
        ),
        "backward pre": norm.register_full_backward_pre_hook(note("backward pre")),
        "backward": norm.register_full_backward_hook(note("backward")),
        "saving": norm.register_state_dict_pre_hook(note("saving")),
        "loading": norm.register_load_state_dict_pre_hook(note("loading")),
        "loaded": norm.register_load_state_dict_post_hook(note("loaded")),
    }
    copied = normswap.convert(model, "instance", inputs=IMAGE())
    assert copied.report.ok, copied.report.to_text()
    normswap.convert(model, "instance", inputs=IMAGE(), in_place=True)
    del norm

    def seen(model: nn.Module) -> list[str]:
        calls.clear()
        model(IMAGE()[0].requires_grad_()).sum().backward()
        model.load_state_dict(model.state_dict())
        return [re.sub(" SwappedNorm$", "", call) for call in calls]

    assert seen(model) == list(handles)
    assert seen(copied.model) == list(handles)
    for name, handle in handles.items():
        handle.remove()
        assert name not in seen(model)
    assert seen(copied.model) == list(handles)  # a copy's are its own


@every_target
def test_a_parametrized_weight_goes_on_being_trained(to: str) -> None:
    model = MODULES["parametrized weight"].build().train()
    conversion = normswap.convert(model, to, **asked(to), inputs=IMAGE())
    assert conversion.report.ok, conversion.report.to_text()
    norm = conversion.model.norm
    raw = norm.parametrizations.weight.original
    assert torch.equal(norm.weight, raw.exp())
    was = conversion.model(*IMAGE())
    was.square().mean().backward()
    with torch.no_grad():
        raw -= raw.grad
    assert torch.equal(norm.weight, raw.exp())
    assert not torch.equal(conversion.model(*IMAGE()), was)


# What people do with a module next.


def traced(model: nn.Module, inputs: Any) -> Any:
    return torch.jit.trace(model, inputs)  # type: ignore[no-untyped-call]


def saved_and_loaded(model: nn.Module, path: Path) -> Any:
    torch.save(model, path)
    return torch.load(path, weights_only=False)


USES: dict[str, Callable[[nn.Module, Any, Path], Any]] = {
    "deepcopy": lambda model, inputs, path: copy.deepcopy(model),
    "pickle": lambda model, inputs, path: saved_and_loaded(model, path / "model.pt"),
    "torch.compile": lambda model, inputs, path: torch.compile(model, fullgraph=True, backend="aot_eager"),
    "torch.jit.trace": lambda model, inputs, path: traced(model, inputs),
    "torch.export": lambda model, inputs, path: torch.export.export(
        model, inputs, dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module(),
    "symbolic_trace": lambda model, inputs, path: fx.symbolic_trace(model),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit and what the exporters call themselves
@every_target
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "name", ["BatchNorm1d, (N, C, L), train", "BatchNorm2d, train", "BatchNorm3d, train", "without bias, train"]
)
def test_it_is_used_as_any_module(name: str, use: str, to: str, tmp_path: Path) -> None:
    model, inputs = conversion_of(name, to).model, MODULES[name].inputs()
    assert isinstance(inputs, tuple)
    torch._dynamo.reset()  # it compiles one piece of code so many times and no more
    used = USES[use](model, inputs, tmp_path)
    close(used(*inputs), model(*inputs))
    other = shaped((5, *inputs[0].shape[1:]))()  # of another batch size
    if use not in ("torch.compile", "torch.jit.trace"):
        close(used(*other), model(*other))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")  # exporters'
@every_target
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "TorchScript"])
@pytest.mark.parametrize("name", ["BatchNorm2d, train", "BatchNorm1d, (N, C, L), train", "two names, train"])
def test_onnx_export(name: str, dynamo: bool, to: str, tmp_path: Path) -> None:
    original, inputs = MODULES[name].build(), MODULES[name].inputs()
    model, path = conversion_of(name, to).model, tmp_path / "exported.onnx"
    assert isinstance(inputs, tuple)
    dynamic: dict[str, Any] = (
        {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    training = torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(
        model, inputs, path, dynamo=dynamo, input_names=["x"], training=training, verbose=False, **dynamic
    )
    nodes = onnx.load(path).graph.node
    operators = Counter(node.op_type for node in nodes)
    assert operators["InstanceNormalization"] == ((2 if name.startswith("two") else 1) if to == "instance" else 0)
    if to != "population":
        assert operators["BatchNormalization"] == 0
    assert not [a for n in nodes for a in n.attribute if a.name == "training_mode" and a.i]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (2, 5):
        (x,) = shaped((batch, *inputs[0].shape[1:]))()
        (y,) = session.run(None, {"x": x.numpy()})
        with torch.no_grad():
            close(torch.from_numpy(y), model(x))
    report = normswap.verify(original, path, to, **asked(to), inputs=inputs)
    assert report.ok, report.to_text()


# Classes that normswap is told of.


class BatchNormAct(nn.BatchNorm2d):
    """BatchNorm, dropout and an activation with weights of its own, as image libraries fuse them."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.drop = nn.Dropout(0.0)
        self.act = nn.PReLU(num_features, init=0.3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


@every_target
def test_a_class_that_normswap_is_told_of(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, BatchNormAct, Layout(after=("drop", "act")))
    make = partial(block, lambda: BatchNormAct(C))
    conversion = normswap.convert(model := make(), to, **asked(to), inputs=IMAGE())
    assert conversion.report.ok, conversion.report.to_text()
    with torch.no_grad():
        close(conversion.model(*IMAGE()), stated(make(), conversion.plan, IMAGE()))
    assert conversion.model.norm.act.training
    conversion.model.load_state_dict(model.state_dict(), strict=True)
    assert list(normswap.convert_state_dict(model.state_dict(), to, **asked(to))) == list(conversion.model.state_dict())
    assert normswap.convert(model, to, **asked(to), inputs=IMAGE(), in_place=True).model is model


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(Layout(after=("act",)), id="a child forgotten"),
        pytest.param(Layout(), id="children forgotten"),
        pytest.param(None, id="nothing said"),
    ],
)
def test_a_class_of_which_too_little_is_said_is_refused(layout: Layout | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if layout is not None:
        monkeypatch.setitem(LAYOUTS, BatchNormAct, layout)
    model = block(lambda: BatchNormAct(C))
    with pytest.raises(RefusedLayersError, match="would be lost") as caught:
        normswap.convert(model, "instance", inputs=IMAGE())
    one_sentence(caught.value)


def test_a_wrong_word_about_a_class_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, BatchNormReLU, Layout())
    report = normswap.convert(block(lambda: BatchNormReLU(C)), "instance", inputs=IMAGE()).report
    assert not report.ok
    assert {check.witness for check in report.checks if not check.ok} == {"end to end"}
    monkeypatch.setitem(LAYOUTS, BatchNormAct, Layout(after=("act", "drop"), bias="weight", weight="bias"))
    report = normswap.convert(block(lambda: BatchNormAct(C)), "instance", inputs=IMAGE()).report
    assert not report.ok


def test_sync_batch_norm_is_explained() -> None:
    (said,) = kept_conversion("SyncBatchNorm, train", "instance").report.notes
    assert said.startswith("norm: SyncBatchNorm trains with the statistics of all processes together")


# Wrappers.


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(folder / "store"), 1)  # type: ignore[attr-defined]  # it is documented
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_distributed_data_parallel_is_taken_off(tmp_path: Path) -> None:
    with one_process(tmp_path):
        model = nn.parallel.DistributedDataParallel(block())
        conversion = normswap.convert(model, "instance", inputs=IMAGE())
        assert conversion.report.ok, conversion.report.to_text()
        assert [layer.name for layer in conversion.plan.layers] == ["norm"]
        assert any(note.startswith("DistributedDataParallel was taken off") for note in conversion.report.notes)
        with unchanged(model), pytest.raises(UnsupportedModelError, match="before wrapping it") as caught:
            normswap.convert(model, "instance", inputs=IMAGE(), in_place=True)
        one_sentence(caught.value)
        around = nn.parallel.DistributedDataParallel(conversion.model)
        close(around(*IMAGE()), conversion.model(*IMAGE()))


def test_a_part_that_is_compiled() -> None:
    def make() -> nn.Module:
        part = cast(nn.Module, torch.compile(Block(nn.BatchNorm2d(C), channels=C), backend="eager"))
        return nn.Sequential(nn.Conv2d(3, C, 1), part, nn.BatchNorm2d(C))

    conversion = normswap.convert(model := seeded(make, train=True)(), "instance", inputs=IMAGE())
    assert [layer.name for layer in conversion.plan.layers] == ["1._orig_mod.norm", "2"]
    assert conversion.report.ok, conversion.report.to_text()
    with torch.no_grad():
        close(conversion.model(*IMAGE()), stated(model, conversion.plan, IMAGE()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit itself
def test_torchscript_is_refused_whole_and_left_in_parts() -> None:
    scripted = torch.jit.script(block(train=False))
    for model in (scripted, traced(block(train=False), IMAGE())):
        with pytest.raises(UnsupportedModelError, match=r"TorchScript.*convert the nn\.Module") as caught:
            normswap.convert(model, "instance", inputs=IMAGE())
        one_sentence(caught.value)
    mixed = randomized(nn.Sequential(scripted, nn.BatchNorm2d(C)), 0).eval()
    with pytest.raises(RefusedLayersError, match=r"0\.norm: it is TorchScript"):
        normswap.convert(mixed, "instance", inputs=IMAGE())
    report = normswap.convert(mixed, "instance", inputs=IMAGE(), allow_refusals=True).report
    assert report.ok, report.to_text()
    assert report.planned == ("1",)


# Functional calls, graphs, and what is held outside the module tree.


@pytest.mark.parametrize("name", ["F.batch_norm", "F.batch_norm, train", "F.batch_norm beside a module"])
def test_functional_calls_are_seen_refused_and_left(name: str) -> None:
    case = MODULES[name]
    (call,) = (path for path in case.roles if "batch_norm@" in path)
    for inputs in (None, case.inputs()):
        found = {layer.name: layer for layer in normswap.find(case.build(), inputs=inputs)}
        assert found.keys() == case.roles.keys()
        assert "functional call" in found[call].blocked
        assert found[call].role == (case.roles[call] if inputs is not None else "unknown")
    with pytest.raises(RefusedLayersError, match=r"torch\.export\.export or torch\.fx\.symbolic_trace") as caught:
        normswap.convert(case.build(), "instance", inputs=case.inputs())
    one_sentence(caught.value)
    if "beside" in name:
        report = kept_conversion(name, "instance").report
        assert report.planned == ("0",)
        assert report.left[call].startswith("REFUSED: it is a functional call")


def exported(model: nn.Module, inputs: Any) -> nn.Module:
    graph: nn.Module = torch.export.export(model, inputs).module()
    return graph


@every_target
@pytest.mark.parametrize("trace", [lambda model, inputs: fx.symbolic_trace(model), exported], ids=["fx", "exported"])
@pytest.mark.parametrize("name", ["F.batch_norm", "F.batch_norm, train", "F.batch_norm beside a module"])
def test_functional_calls_convert_in_graphs(name: str, trace: Callable[[nn.Module, Any], nn.Module], to: str) -> None:
    case = MODULES[name]
    if not any(role != NORMS[to].equals for role in case.roles.values()):
        return
    inputs: Any = case.inputs()
    model = trace(case.build(), inputs)
    conversion = normswap.convert(model, to, **asked(to), inputs=inputs)
    assert conversion.report.ok, conversion.report.to_text()
    assert len(conversion.plan.layers) == len(case.roles)
    meant = case.build()
    for module in meant.modules():
        if isinstance(module, _BatchNorm) or "running_mean" in module._buffers:
            module.training = NORMS[to].formula.native == "train"
    samples = [(x,) for x in inputs[0].split(1 if NORMS[to].formula.alone else 2)]
    with torch.no_grad(), Blended(NORMS[to]) if NORMS[to].formula.native == "given" else nullcontext():
        close(outputs(conversion.model, inputs), torch.cat([meant(*sample) for sample in samples]))


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case.traceable])
def test_traced_models_convert_as_their_modules_do(name: str) -> None:
    case = MODULES[name]
    model = fx.symbolic_trace(case.build())
    found = normswap.find(model, inputs=case.inputs())
    # Tracing leaves what is never called behind, and one of several names.
    assert {layer.role for layer in found} == set(case.roles.values())
    for to in NORMS:
        if not any(layer.role not in (NORMS[to].equals, "weight", "unknown") for layer in found):
            continue
        try:
            conversion = normswap.convert(model, to, **asked(to), inputs=case.inputs(), allow_refusals=True)
        except normswap.NothingToConvertError:
            assert case.refused.get(to)
            continue
        assert conversion.report.ok, conversion.report.to_text()
        if changes(name, to) and not case.refused.get(to) and "dropout" not in name:
            close(outputs(conversion.model, case.inputs()), outputs(kept_conversion(name, to).model, case.inputs()))


class Outside(nn.Module):
    """Holds BatchNorms where torch does not look for modules."""

    def __init__(self, hold: Callable[[nn.Module], Any], take: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.held = hold(nn.BatchNorm2d(3))
        self.take = take

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.take(self.held)(self.norm(x))
        return y


def _itself(held: Any) -> Any:
    return held


@pytest.mark.parametrize(
    ("hold", "take"),
    [
        pytest.param(lambda norm: [norm], lambda held: held[0], id="a list"),
        pytest.param(lambda norm: {"norm": norm}, lambda held: held["norm"], id="a dict"),
        pytest.param(lambda norm: [nn.Sequential(norm, nn.ReLU())], lambda held: held[0], id="a block in a list"),
        pytest.param(lambda norm: norm.forward, _itself, id="a bound method"),
        pytest.param(lambda norm: lambda x: norm(x), _itself, id="a closure"),
        pytest.param(lambda norm: [fx.symbolic_trace(nn.Sequential(norm))], lambda held: held[0], id="a graph"),
    ],
)
def test_what_is_held_outside_the_module_tree_is_not_missed(
    hold: Callable[[nn.Module], Any], take: Callable[[Any], nn.Module]
) -> None:
    model = seeded(lambda: Outside(hold, take), train=True)()
    norm, hidden = normswap.find(model, inputs=IMAGE())
    assert (norm.name, norm.blocked) == ("norm", "")
    assert re.search("called by a .* that is not registered in the module tree", hidden.blocked)
    with pytest.raises(RefusedLayersError, match="not registered in the module tree") as caught:
        normswap.convert(model, "instance", inputs=IMAGE())
    one_sentence(caught.value)
    report = normswap.convert(model, "instance", inputs=IMAGE(), allow_refusals=True).report
    assert report.ok, report.to_text()
    assert report.left[hidden.name].startswith("REFUSED")


def test_each_of_several_held_outside_is_counted() -> None:
    class Several(Outside):
        def forward(self, x: Tensor) -> Tensor:
            for norm in (*self.held, *self.held):
                x = norm(x)
            return x

    model = Several(lambda norm: [norm, nn.BatchNorm2d(3), nn.BatchNorm2d(3)], lambda held: nn.Identity())
    found = normswap.find(model, inputs=IMAGE())
    assert len([layer for layer in found if layer.blocked]) == 3
    assert len({layer.name for layer in found}) == 4


# What cannot be run.


def test_a_lazy_layer_is_refused_in_one_sentence() -> None:
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.LazyBatchNorm2d())
    for inputs in (None, IMAGE()):
        with pytest.raises(RefusedLayersError, match=r"^1: it is not materialized: run the model once") as caught:
            normswap.convert(model, "instance", inputs=inputs)
        one_sentence(caught.value)
    lazy = nn.Sequential(nn.LazyConv2d(C, 3), nn.BatchNorm2d(C))
    with pytest.raises(CannotRunError, match="give inputs") as caught_lazy:
        normswap.convert(lazy, "instance")
    one_sentence(caught_lazy.value)


class Raising(Block):
    """A model whose forward fails, at some length."""

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("not here\n" * 50)


UNFIT: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "too many": (block, (torch.zeros(1), torch.zeros(1)), "too many positional arguments"),
    "another name": (block, {"image": torch.zeros(1)}, "missing a required argument: 'x'"),
    "none": (block, (), "missing a required argument: 'x'"),
    "channels": (block, torch.zeros(2, 5, 6, 6), "expected input.* to have 3 channels, but got 5"),
    "rank": (lambda: seeded(lambda: nn.BatchNorm2d(3))(), torch.zeros(2, 3, 6), "expected 4D input"),
    "no tensor": (block, "", r"an empty path: expected an \.npz"),
    "no file": (block, "there_is_no_such_file.npz", "there_is_no_such_file"),
    "a type": (block, (3,), "TypeError"),
    "a model that raises": (lambda: Raising(nn.BatchNorm2d(C)), torch.zeros(2, 3, 6, 6), "raised KeyError"),
}


@pytest.mark.parametrize("act", ["find", "plan", "convert", "verify"])
@pytest.mark.parametrize(("make", "inputs", "words"), UNFIT.values(), ids=UNFIT)
def test_inputs_that_do_not_fit(make: Callable[[], nn.Module], inputs: Any, words: str, act: str) -> None:
    model = make()
    acts: dict[str, Callable[[], Any]] = {
        "find": lambda: normswap.find(model, inputs=inputs),
        "plan": lambda: normswap.plan(model, "instance", inputs=inputs),
        "convert": lambda: normswap.convert(model, "instance", inputs=inputs, end_to_end=False),
        "verify": lambda: normswap.verify(model, model, "instance", inputs=inputs),
    }
    unread = (normswap.ModelReadError, normswap.DataError)
    expected = unread if isinstance(inputs, str) else CannotRunError
    with unchanged(model), pytest.raises(expected, match=words) as caught:
        acts[act]()
    one_sentence(caught.value)


@dataclass
class Result:
    """What libraries return: tensors beside other things."""

    image: Tensor
    label: str
    loss: Tensor | None = None


class Returns(Block):
    """Gives its result in some form."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__(nn.BatchNorm2d(C))
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(super().forward(x))


@pytest.mark.parametrize(
    ("form", "compared", "said"),
    [
        pytest.param(lambda y: Result(y, "cat"), [".image"], [".label (str)"], id="a dataclass"),
        pytest.param(lambda y: (y, None, "cat", [y]), ["[0]", "[3][0]"], ["[2] (str)"], id="None and str"),
        pytest.param(lambda y: (y, object()), ["[0]"], ["[1] (object)"], id="an object"),
        pytest.param(lambda y: {"y": y, "n": 3, "z": y > 0}, ["['y']", "['n']", "['z']"], [], id="a number"),
        pytest.param(lambda y: y.relu().to_sparse(), ["output"], [], id="sparse"),
        pytest.param(lambda y: torch.complex(y, y), ["output"], [], id="complex"),
    ],
)
def test_odd_outputs_are_compared_or_named(form: Callable[[Tensor], Any], compared: list[str], said: list[str]) -> None:
    report = normswap.convert(seeded(lambda: Returns(form), train=True)(), "instance", inputs=IMAGE()).report
    assert report.ok, report.to_text()
    assert [check.name for check in report.of("end to end")] == [f"{name} (eager)" for name in compared]
    assert list(report.notes) == [f"outputs that are no numbers were not compared: {name}" for name in said]


@pytest.mark.parametrize("form", [lambda y: None, lambda y: "cat", lambda y: ()], ids=["None", "str", "nothing"])
def test_outputs_that_hold_no_tensor(form: Callable[[Tensor], Any]) -> None:
    model = seeded(lambda: Returns(form), train=True)()
    with pytest.raises(CannotRunError, match="holds no tensor that can be compared") as caught:
        normswap.convert(model, "instance", inputs=IMAGE())
    one_sentence(caught.value)
    report = normswap.convert(model, "instance", inputs=IMAGE(), end_to_end=False).report
    assert report.ok
    assert report.verdict.endswith("by structure and probes alone")


# The report.

REPORT = """\
structure   5 modules and 11 tensors (584 bytes) outside the 2 converted layers are identical
probes      2 of 2 hold; worst LAYER: error E, allowed E at [I] (all of N elements; input S, F)
end to end  1 of 1 hold; worst output (eager): error E, allowed E at [I] (all of 240 elements; noise floor E, \
largest output E)
inputs      given by the caller
  left as they are: 3 (not selected)
  left as they are: CALL (REFUSED: it is a functional call in the code, which no module holds; \
torch.export.export or torch.fx.symbolic_trace gives a model in which normswap can replace it)
  note: DataParallel was taken off: names and the converted model are those of the module inside
PASS: equal to train-mode BatchNorm fed one sample at a time"""


def test_the_report_of_a_module_reads_well() -> None:
    def make() -> nn.Module:
        functional = MODULES["F.batch_norm"].build()
        return nn.DataParallel(nn.Sequential(nn.BatchNorm2d(3), functional, nn.BatchNorm2d(C), nn.BatchNorm2d(C)))

    report = normswap.convert(
        seeded(make, train=True)(), "instance", inputs=IMAGE(), skip=["3"], allow_refusals=True
    ).report
    text = re.sub(r"\d[\d.]*e[-+]\d+|(?<=error )[\d.]+|(?<=allowed )[\d.]+|(?<=output )[\d.]+", "E", report.to_text())
    text = re.sub(r"\[\d[\d, ]*\]", "[I]", text)
    text = re.sub(r"worst \d:", "worst LAYER:", text)
    text = re.sub(r"\d+ elements; input [\dx]+, [a-z_ ]+, [a-z_]+\)", "N elements; input S, F)", text)
    text = re.sub(r"1\.norm:batch_norm@modules\.py:\d+", "CALL", text)
    assert text == REPORT
