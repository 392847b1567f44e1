"""Every form of every target against float64 arithmetic, its gradients against train mode, its graphs in exporters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.models.targets import TARGETS
from torch import Tensor, fx, nn

from normswap import NormLayer
from normswap.layer import Array
from normswap.norms.rounding import rounding_bound
from normswap.norms.torch import Kernel
from normswap.norms.torch.export import Operands
from normswap.verify.probes import probes

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}
KERNELS = {target: norm.torch_kernel() for target, norm in TARGETS.items()}
FORMS = {target: kernel.forms for target, kernel in KERNELS.items()}
ALL_FORMS = [(target, form) for target, forms in FORMS.items() for form in forms]
EAGER_FORMS = [(target, form) for target, form in ALL_FORMS if form != "export"]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
assert ml_dtypes  # gives NumPy the name bfloat16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tensor_of(array: Array) -> Tensor:
    return torch.tensor(array.astype(np.float64)).to(DTYPES[str(array.dtype)])


def array_of(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def layer_of(dtype: str, eps: float, param_dtype: str | None, channels: int = 7) -> NormLayer:
    """A layer whose parameters are nothing special; ``param_dtype`` None stands for no weight and no bias."""
    rng = np.random.default_rng(2)
    weight, bias, mean = (rng.uniform(low, high, channels) for low, high in ((0.5, 2), (-1, 1), (-1, 1)))
    var = rng.uniform(0.5, 2, channels) * np.where(np.arange(channels) % 2, 1.0, eps)
    if param_dtype is None:
        weight, bias = np.ones(channels), np.zeros(channels)
    weight, bias, mean, var = (value.astype(param_dtype or dtype) for value in (weight, bias, mean, var))
    return NormLayer("y", "train", channels, eps, weight, bias, mean, var, dtype)


Parameters = tuple[Tensor | None, Tensor | None, Tensor, Tensor]


def parameters_of(layer: NormLayer, given: bool = True) -> Parameters:
    values = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    weight, bias, mean, var = (tensor_of(value) for value in values if value is not None)
    return (weight, bias, mean, var) if given else (None, None, mean, var)


@dataclass(frozen=True, eq=False)
class Exact:
    """What a target gives in float64 arithmetic, and how far from it rounding may lead."""

    x: Array
    y: Array
    allowed: Array

    @staticmethod
    def of(target: str, layer: NormLayer, x: Array) -> Exact:
        y = TARGETS[target].reference(x, layer)
        return Exact(x, y, rounding_bound(TARGETS[target], x.astype(np.float64), layer, y))

    def check(self, y: Tensor, name: str) -> None:
        """Fail where y is further away than rounding allows, or is finite and should not be, or the reverse."""
        found = array_of(y)
        largest = torch.finfo(y.dtype).max
        with np.errstate(invalid="ignore"):
            agree = np.abs(found - self.y) <= self.allowed
            agree |= np.isnan(self.y) & np.isnan(found)
            agree |= (np.abs(self.y) + self.allowed > largest) & (found == np.copysign(np.inf, self.y))
        wrong = ~agree
        assert agree.all(), (name, np.argwhere(wrong)[:3], found[wrong][:3], self.y[wrong][:3], self.allowed[wrong][:3])


@lru_cache(maxsize=16)  # tests that share the cases follow one another
def cases(target: str, dtype: str, param_dtype: str | None) -> list[tuple[str, NormLayer, Exact]]:
    made = []
    for rank in (3, 4, 5) if TARGETS[target].formula.alone else (2, 3, 4, 5):
        layer = layer_of(dtype, 1e-3 if rank % 2 else 1e-5, param_dtype)
        made += [
            (f"rank {rank}, {probe.name}", layer, Exact.of(target, layer, probe.x)) for probe in probes(layer, rank)
        ]
    return made


# Outermost what the cases depend on, so that they are made once.
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("target", "form"), ALL_FORMS)
@pytest.mark.parametrize("param_dtype", ["same", "float32", None], ids=["same", "float32 parameters", "no parameters"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_form_is_float64_arithmetic_on_every_probe(
    dtype: str, param_dtype: str | None, target: str, form: str, channels_last: bool
) -> None:
    for name, layer, exact in cases(target, dtype, dtype if param_dtype == "same" else param_dtype):
        x = tensor_of(exact.x)
        if channels_last and x.dim() in CHANNELS_LAST:
            x = x.contiguous(memory_format=CHANNELS_LAST[x.dim()])
        for gradients in (True, False):  # a form may write into memory of its own where none are recorded
            with torch.set_grad_enabled(gradients):
                y = FORMS[target][form](x, *parameters_of(layer, param_dtype is not None), layer.eps)
            assert y.dtype == x.dtype
            exact.check(y, name)


@pytest.mark.parametrize(("target", "form"), ALL_FORMS)
def test_a_channel_that_is_all_of_a_sample_does_not_cancel(target: str, form: str) -> None:
    # With one channel, contiguous memory is channels_last by its strides as well, which kernels may go by.
    layer = layer_of("float32", 1e-5, "float32", channels=1)
    x = (np.random.default_rng(0).standard_normal((2, 1, 9, 8)) + 1e4).astype(np.float32)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = torch.empty(2, 1, 9, 8).to(memory_format=memory_format).copy_(tensor_of(x))
        Exact.of(target, layer, x).check(FORMS[target][form](given, *parameters_of(layer), 1e-5), form)


def call(target: str, x: Tensor, parameters: Parameters, eps: float) -> Tensor:
    """Compute a target as a converted module does."""
    return KERNELS[target](x, *parameters, eps)


# Sizes at which ``pick`` decides differently.
SIZES = [
    (1, 64, 32, 32),
    (2, 64, 64, 64),
    (3, 64, 24, 24),
    (4, 32, 12, 12),
    (5, 16, 2, 3),
    (2, 24, 200),
    (2, 8, 4, 16, 8),
    (1, 3, 5, 7),
]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("target", FORMS)
def test_what_is_picked_is_float64_arithmetic_in_the_same_memory_format(
    target: str, size: tuple[int, ...], gradients: bool
) -> None:
    rng = np.random.default_rng(1)
    for dtype, last in itertools.product(("float32", "bfloat16"), (False, True)):
        layer = layer_of(dtype, 1e-3, "float32", size[1])
        values = (
            rng.standard_normal(size) + rng.choice([0.0, 100.0], (size[0], size[1]) + (1,) * (len(size) - 2))
        ).astype(dtype)
        x = tensor_of(values)
        if last and len(size) in CHANNELS_LAST:
            x = x.contiguous(memory_format=CHANNELS_LAST[len(size)])
        y = call(target, x.requires_grad_(gradients), parameters_of(layer), 1e-3)
        assert y.dtype == x.dtype and y.requires_grad == gradients
        assert y.stride() == x.stride()
        Exact.of(target, layer, values).check(y, KERNELS[target].pick(x, gradients=gradients))


def test_pick_knows_every_form_and_no_other() -> None:
    for target, forms in FORMS.items():
        picked = {"export"}
        for size, dtype, device, gradients, last in itertools.product(
            SIZES, DTYPES.values(), ("cpu", "meta"), (False, True), (False, True)
        ):
            x = torch.empty(size, dtype=dtype, device=device)
            if last and len(size) in CHANNELS_LAST:
                x = x.contiguous(memory_format=CHANNELS_LAST[len(size)])
            choice = KERNELS[target].pick(x, gradients=gradients)
            assert choice == "native" or device == "cpu"
            picked.add(choice)
        assert picked == set(forms)


@pytest.mark.parametrize(("target", "form"), ALL_FORMS)
def test_strided_input(target: str, form: str) -> None:
    layer = layer_of("float64", 1e-3, "float64", 4)
    base = torch.tensor(np.random.default_rng(0).standard_normal((3, 10, 8, 12)))
    views = [
        base[:, 1:9:2, ::2, 3:],  # a slice
        base.permute(0, 2, 3, 1)[:, :4],  # channels_last
        base.permute(0, 2, 3, 1)[:, 2:6, ::2],  # a slice of channels_last
        base.permute(3, 2, 1, 0)[:, ::2],  # the batch innermost
        base[:1, :1].expand(5, 4, 8, 12),
        base[0, :, :, :4].transpose(1, 2),  # rank 3, channels innermost
    ]
    for x in views:
        y = FORMS[target][form](x, *parameters_of(layer), 1e-3)
        Exact.of(target, layer, x.numpy()).check(y, str(x.stride()))
        if form != "export" and x.dim() == 4 and x.stride(1) == 1:
            assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("target", "form"), EAGER_FORMS)
def test_nothing_to_normalize(target: str, form: str) -> None:
    for shape in [(0, 4, 5, 5), (2, 4, 0, 5), (0, 4, 3)]:
        parameters = parameters_of(layer_of("float32", 1e-3, "float32", 4))
        assert FORMS[target][form](torch.empty(shape), *parameters, 1e-3).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("target", "form"), [(target, form) for target, form in EAGER_FORMS if TARGETS[target].formula.native == "train"]
)
def test_one_element_to_a_statistic_gives_exactly_the_bias(target: str, form: str, dtype: str) -> None:
    layer = layer_of(dtype, 1e-5, dtype, 4)
    samples = 1 if target == "batch-stat" else 3
    for shape in [(samples, 4, 1), (samples, 4, 1, 1), (samples, 4, 1, 1, 1)]:
        x = tensor_of((np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype))
        y = FORMS[target][form](x, *parameters_of(layer), 1e-5)
        assert layer.bias is not None
        expected = tensor_of(layer.bias).view(1, 4, *(1,) * (len(shape) - 2)).expand(shape)
        assert torch.equal(y, expected)


@pytest.mark.parametrize(
    ("x", "channels", "norm", "words"),
    [
        (
            (2, 4),
            4,
            KERNELS["instance"],
            r"statistics of each sample and channel need x of shape \(N, C, \*spatial\), found \(2, 4\)",
        ),
        ((4,), 4, KERNELS["batch-stat"], r"BatchNorm needs x of shape \(N, C\) or \(N, C, \*spatial\), found \(4,\)"),
        ((2, 3, 5), 4, KERNELS["instance"], r"the layer has 4 channels, x of shape \(2, 3, 5\) has 3"),
        ((2, 4, 5), 1, KERNELS["batch-stat"], r"the layer has 1 channels, x of shape \(2, 4, 5\) has 4"),
    ],
)
def test_errors(x: tuple[int, ...], channels: int, norm: Kernel, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        norm(torch.zeros(x), torch.ones(channels), None, None, None, 1e-5)
    with pytest.raises(ValueError, match=words):
        norm(torch.zeros(x), None, torch.ones(channels), None, None, 1e-5)


def native(target: str, x: Tensor, parameters: Parameters, eps: float) -> Tensor:
    """The target as torch's own BatchNorm has it: one sample at a time, the batch, or eval mode.

    A blend is eval mode written out, as torch has no gradients of the statistics that it is given.
    """
    weight, bias, mean, var = parameters
    norm = TARGETS[target]
    if norm.formula.joins_channels:
        return nn.functional.group_norm(x, norm.formula.groups_of(x.shape[1]), weight, bias, eps)
    if target == "population":
        return nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
    parts = torch.split(x, 1) if norm.formula.alone else [x]
    if not norm.formula.reads_stored:
        return torch.cat([nn.functional.batch_norm(part, None, None, weight, bias, True, 0.0, eps) for part in parts])
    assert weight is not None and bias is not None
    ys = []
    for part in parts:
        own_var, own_mean = torch.var_mean(part, (0, 2, 3), correction=0)
        mixed_mean, mixed_var = (
            (norm.parameters["prior"] * stored + len(part) * own) / (norm.parameters["prior"] + len(part))
            for stored, own in ((mean, own_mean), (var, own_var))
        )
        column = (1, -1, 1, 1)
        normalized = (part - mixed_mean.view(column)) / (mixed_var + eps).sqrt().view(column)
        ys.append(normalized * weight.view(column) + bias.view(column))
    return torch.cat(ys)


@pytest.mark.parametrize(("target", "form"), ALL_FORMS)
def test_gradients_are_those_of_torchs_batch_norm(target: str, form: str) -> None:
    rng = np.random.default_rng(0)
    layer = layer_of("float64", 1e-3, "float64", 5)
    x = torch.tensor(rng.standard_normal((3, 5, 6, 7)) + rng.choice([0.0, 100.0], (3, 5, 1, 1)))
    outer = torch.tensor(rng.standard_normal(x.shape))

    def gradients(norm: Callable[[Tensor, Parameters], Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        weight, bias, mean, var = (value.to(dtype) for value in parameters_of(layer) if value is not None)
        inputs = [value.requires_grad_() for value in (x.to(dtype, copy=True), weight, bias)]
        y = norm(inputs[0], (inputs[1], inputs[2], mean, var))
        return torch.autograd.grad(y, inputs, outer.to(dtype))

    exact = gradients(lambda x, parameters: native(target, x, parameters, 1e-3), torch.float64)
    found = gradients(lambda x, parameters: FORMS[target][form](x, *parameters, 1e-3), torch.float32)
    for one, other in zip(found, exact, strict=True):
        # float32, at a mean of 100 spreads: a few hundred units of the largest
        torch.testing.assert_close(one.double(), other, rtol=0, atol=3e-5 * float(other.abs().max()))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("target", "form"), ALL_FORMS)
def test_first_and_second_derivatives(target: str, form: str, channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 3, 2, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias, mean = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    var = torch.rand(2, generator=generator, dtype=torch.float64) + 0.5

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return FORMS[target][form](x, weight, bias, mean, var, 0.1)

    inputs = (x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    assert torch.autograd.gradcheck(norm, inputs)
    assert torch.autograd.gradgradcheck(norm, inputs)


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3))[1:], ids=str)
@pytest.mark.parametrize("target", FORMS)
def test_only_what_requires_a_gradient_gets_one(target: str, needs: tuple[bool, ...]) -> None:
    weight, bias, mean, var = parameters_of(layer_of("float32", 1e-3, "float32", 8))
    assert weight is not None and bias is not None
    for size, last in itertools.product([(3, 8, 64, 64), (3, 8, 5, 5), (1, 8, 5, 5)], (False, True)):
        x = torch.randn(size)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        inputs = [t.clone().requires_grad_(need) for t, need in zip((x, weight, bias), needs, strict=True)]
        y = call(target, inputs[0], (inputs[1], inputs[2], mean, var), 1e-3)
        torch.autograd.backward(y.sum())
        assert [t.grad is not None for t in inputs] == list(needs)


def test_autocast_changes_nothing() -> None:
    x = torch.randn(2, 4, 12, 12).bfloat16()
    parameters = parameters_of(layer_of("float32", 1e-3, "float32", 4))
    for target in FORMS:
        expected = call(target, x, parameters, 1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(call(target, x, parameters, 1e-3), expected)
            assert call(target, x.float(), parameters, 1e-3).dtype == torch.float32


class Layer(nn.Module):
    """A network of one layer, after an operator of its own."""

    def __init__(self, target: str, dtype: str = "float32", param_dtype: str | None = "float32") -> None:
        super().__init__()
        self.target = target
        layer = layer_of(dtype, 1e-3, param_dtype, 4)
        weight, bias, mean, var = parameters_of(layer, param_dtype is not None)
        self.weight = None if weight is None else nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("var", var)

    def forward(self, x: Tensor) -> Tensor:
        return call(self.target, x.neg(), (self.weight, self.bias, self.mean, self.var), 1e-3)


# What a target is in a graph, without casts and constants.
_MEAN = ["ReduceMean", "ReduceMean"]
_OF_GROUPS = ["mean", "unflatten", "mean", "expand_as", "flatten"]
ATEN = {
    "instance": ["instance_norm"],
    "batch-stat": ["mean", "mean", "sub", "mul", "mean", "mean", "add", "sqrt", "view", "div", "mul", "view", "add"],
    "population": ["batch_norm"],
    "blend": [
        *("mean", "mean", "sub", "mul", "mean", "mean", "pow", "sum", "add"),
        *("view", "mul", "mul", "add", "div", "add", "sqrt", "view", "div"),  # the blended variance, k
        *("view", "mul", "mul", "add", "div", "sub", "mul", "view", "add", "mul", "add"),
    ],
    "blend of samples": [
        *("mean", "sub", "mul", "mean", "view", "mul", "add", "div", "add", "sqrt", "view", "div"),
        *("view", "mul", "add", "div", "sub", "mul", "view", "add", "mul", "add"),
    ],
    "group": [*_OF_GROUPS, "sub", "mul", *_OF_GROUPS, "add", "sqrt", "view", "div", "mul", "view", "add"],
}
ONNX = {
    "instance": ["InstanceNormalization"],
    "batch-stat": [*_MEAN, "Sub", "Mul", *_MEAN, "Add", "Sqrt", "Div", "Mul", "Add"],
    "population": ["BatchNormalization"],
    "blend": [
        *(*_MEAN, "Sub", "Mul", *_MEAN, "Pow", "ReduceSum", "Add"),
        *("Mul", "Add", "Div", "Add", "Sqrt", "Div", "Mul", "Add", "Div", "Sub", "Mul", "Add", "Mul", "Add"),
    ],
    "blend of samples": [
        *("ReduceMean", "Sub", "Mul", "ReduceMean"),
        *("Add", "Div", "Add", "Sqrt", "Div", "Add", "Div", "Sub", "Mul", "Add", "Mul", "Add"),
    ],
    "group": [
        *("Shape", "ReduceMean", "Reshape", "ReduceMean", "Concat", "Expand", "Reshape", "Sub", "Mul"),
        *("ReduceMean", "Reshape", "ReduceMean", "Expand", "Reshape", "Add", "Sqrt", "Div", "Mul", "Add"),
    ],
}
# Without weight and bias.
PLAIN = {
    "instance": ONNX["instance"],
    "batch-stat": ONNX["batch-stat"][:-2],
    "population": ONNX["population"],
    "blend": [
        *(*_MEAN, "Sub", "Mul", *_MEAN, "Pow", "ReduceSum", "Add"),
        *("Mul", "Add", "Div", "Add", "Sqrt", "Reciprocal", "Mul", "Add", "Div", "Sub", "Mul", "Mul", "Add"),
    ],
    "blend of samples": [
        *("ReduceMean", "Sub", "Mul", "ReduceMean"),
        *("Add", "Div", "Add", "Sqrt", "Reciprocal", "Add", "Div", "Sub", "Mul", "Mul", "Add"),
    ],
    "group": ONNX["group"][:-2],
}
# The older exporter writes out what has no operator of its own.
_GROUPS_WRITTEN_OUT = [
    *("ReduceMean", "Mod", "Shape", "Reshape", "Slice", "Add", "Reshape", "Slice", "Concat", "Reshape"),
    *("ReduceMean", "Shape", "Expand", "Shape", "Slice", "Slice", "Concat", "Reshape"),
]
TORCHSCRIPT = {"group": [*_GROUPS_WRITTEN_OUT, "Sub", "Mul", *_GROUPS_WRITTEN_OUT, "Add", "Sqrt", "Div", "Mul", "Add"]}
TORCHSCRIPT_PLAIN = {"group": TORCHSCRIPT["group"][:-2]}


def aten_names(graph: fx.Graph) -> list[str]:
    operators = [node.target for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    names = [operator._schema.name.removeprefix("aten::") for operator in operators]
    return [name for name in names if name not in ("neg", "to", "_assert_tensor_metadata")]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("target", FORMS)
def test_exported_program(target: str, dtype: str, strict: bool) -> None:
    model = Layer(target, dtype, dtype).eval()
    x, other = (torch.randn(shape).to(DTYPES[dtype]) + 2 for shape in [(2, 4, 6, 5), (5, 4, 3, 9)])
    axes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(model, (x,), dynamic_shapes={"x": axes}, strict=strict)
    assert aten_names(program.graph) == ATEN[target]
    exact = Exact.of(target, layer_of(dtype, 1e-3, dtype, 4), (-array_of(other)).astype(dtype))
    exact.check(program.module()(other), "exported")


def onnx_model(model: nn.Module, x: Tensor, dynamo: bool, path: Path) -> onnx.ModelProto:
    axes = {0: "n", 2: "h", 3: "w"}
    if dynamo:
        program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes={"x": axes}, verbose=False)
        assert program is not None
        return program.model_proto
    named = {"x": axes, "y": axes}
    torch.onnx.export(
        model, (x,), path, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=named, opset_version=17
    )
    return onnx.load(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # among the exporters' own parts
@pytest.mark.filterwarnings("ignore:ONNX export mode is set to TrainingMode.EVAL")  # as for nn.InstanceNorm2d
@pytest.mark.parametrize(
    ("dtype", "param_dtype"),
    [("float32", "float32"), ("float32", None), ("float16", "float16"), ("float16", "float32")],
)
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
@pytest.mark.parametrize("target", FORMS)
def test_onnx_exporters(tmp_path: Path, target: str, dynamo: bool, dtype: str, param_dtype: str | None) -> None:
    x, other = (torch.randn(shape).to(DTYPES[dtype]) + 2 for shape in [(2, 4, 6, 5), (5, 4, 3, 9)])
    model = onnx_model(Layer(target, dtype, param_dtype).eval(), x, dynamo, tmp_path / "layer.onnx")
    found = [node.op_type for node in model.graph.node if node.op_type not in ("Neg", "Cast", "Constant")]
    newer, older = (PLAIN, TORCHSCRIPT_PLAIN) if param_dtype is None else (ONNX, TORCHSCRIPT)
    assert found == (newer if dynamo else newer | older)[target]
    for value in (*model.graph.input, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        assert [bool(size.dim_param) for size in sizes] == [True, False, True, True]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    exact = Exact.of(target, layer_of(dtype, 1e-3, param_dtype, 4), (-array_of(other)).astype(dtype))
    exact.check(torch.from_numpy(y), "onnxruntime")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("target", FORMS)
def test_export_form_writes_a_graph(target: str, rank: int, dtype: str) -> None:
    if TARGETS[target].formula.alone and rank == 2:
        rank = 6
    layer = layer_of(dtype, 1e-3, dtype)
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    x, weight, bias, mean, var = (
        fx.Proxy(graph.placeholder(name), tracer) for name in ("x", "weight", "bias", "mean", "var")
    )
    given = Operands(x, weight, bias, mean, var, 1e-3, rank, DTYPES[dtype], DTYPES[dtype])
    graph.output(KERNELS[target].export(given).node)
    module = fx.GraphModule(nn.Module(), graph)
    for probe in probes(layer, rank):
        y = module(tensor_of(probe.x), *parameters_of(layer))
        assert y.dtype == DTYPES[dtype]
        Exact.of(target, layer, probe.x).check(y, probe.name)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("target", FORMS)
def test_compiles_to_one_graph(target: str, gradients: bool) -> None:
    torch._dynamo.reset()
    model = Layer(target).requires_grad_(gradients)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for shape, last in itertools.product([(2, 4, 6, 5), (5, 4, 3, 9)], (False, True)):
        x = torch.randn(shape) + 2
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        y = compiled(x)
        assert y.requires_grad == gradients and y.stride() == x.stride()
        Exact.of(target, layer_of("float32", 1e-3, "float32", 4), -x.numpy()).check(y, str(shape))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(1, 64, 64, 64), (8, 64, 64, 64), (8, 64, 16, 16)], ids=str)
@pytest.mark.parametrize("target", ["instance", "batch-stat"])
def test_a_mean_of_3000_costs_no_more_than_torchs_own_train_mode(
    target: str, shape: tuple[int, ...], channels_last: bool
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3000
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    parameters = parameters_of(layer_of("float32", 1e-5, "float32", channels=shape[1]))
    weight, bias, mean, var = parameters
    assert weight is not None and bias is not None
    with torch.no_grad():
        exact = native(target, x.double(), (weight.double(), bias.double(), mean.double(), var.double()), 1e-5)
        ours = float((call(target, x, parameters, 1e-5).double() - exact).abs().max())
        theirs = float((native(target, x, parameters, 1e-5).double() - exact).abs().max())
    # Four units in the last place of x, the resolution of what is given, times the largest weight, 2.
    assert ours <= max(theirs, 4 * 2.0**-12 * 2)
