"""verify across frameworks: what was made of a module, in every form, is held to it, and wrong files are caught."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import pytest
import torch
from onnx import helper, numpy_helper
from support.models.gan_networks import PatchDiscriminator, ResNetGenerator, UNetGenerator
from support.models.modules import MODULES, Build, seeded, shaped
from support.models.targets import Blended, asked
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import normswap
from normswap.cli import main
from normswap.errors import CannotRunError, ModelWriteError, NothingToConvertError, RefusedLayersError
from normswap.norms import NORMS

Inputs: TypeAlias = "tuple[Tensor, ...]"
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Exporters warn of their own age."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def with_batch_norms(model: nn.Module, *, train: bool) -> nn.Module:
    """Copy a model and set the mode of its BatchNorms alone."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(train)
    return model


def meant(model: nn.Module, to: str, inputs: Inputs) -> list[Array]:
    """What a conversion computes, by torch's own BatchNorm in the mode that the target states."""
    model = with_batch_norms(model, train=NORMS[to].formula.native == "train")
    parts = zip(*(torch.split(x, 1 if to == "instance" else len(x)) for x in inputs), strict=True)
    with torch.no_grad(), Blended(NORMS[to]) if NORMS[to].formula.native == "given" else contextlib.nullcontext():
        runs = [listed(model(*part)) for part in parts]
    return [torch.cat(outputs).numpy() for outputs in zip(*runs, strict=True)]


def listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def computed(model: Any, inputs: Inputs) -> list[Array]:
    """What a converted model computes, whatever it is."""
    if isinstance(model, str) and model.endswith(".onnx"):
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        feed = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
        return [np.asarray(y) for y in session.run(None, feed)]
    if isinstance(model, str):
        model = torch.export.load(model)
    module = model.module() if isinstance(model, torch.export.ExportedProgram) else model
    with torch.no_grad():
        return [y.numpy() for y in listed(module(*inputs))]


def exported(model: nn.Module, path: str, inputs: Inputs, *, training: bool = False) -> str:
    """Export a module by TorchScript, with its BatchNorms kept and the batch left open."""
    modes = torch.onnx.TrainingMode
    names = [f"in{index}" for index in range(len(inputs))]
    axes = {name: {0: "N"} for name in names}
    model = model if training else with_batch_norms(model, train=False)
    with silent():
        torch.onnx.export(
            copy.deepcopy(model),
            inputs,
            path,
            dynamo=False,
            input_names=names,
            dynamic_axes=axes,
            do_constant_folding=False,
            training=modes.TRAINING if training else modes.PRESERVE,
        )
    return path


# Every form of a conversion.

NETWORKS: dict[str, tuple[Build, Callable[[], Inputs]]] = {
    "pix2pix U-Net": (seeded(lambda: UNetGenerator(4, 4)), shaped((3, 3, 32, 32))),
    "ResNet generator": (seeded(lambda: ResNetGenerator(4, 1)), shaped((3, 3, 16, 16))),
    "PatchGAN": (seeded(lambda: PatchDiscriminator(4)), shaped((3, 3, 32, 32), (3, 3, 32, 32))),
}


def as_module(model: nn.Module, to: str, inputs: Inputs) -> Any:
    return normswap.convert(model, to, **asked(to), inputs=inputs).model


def as_file(path: str) -> Callable[[nn.Module, str, Inputs], Any]:
    def form(model: nn.Module, to: str, inputs: Inputs) -> Any:
        conversion = normswap.convert(model, to, **asked(to), inputs=inputs, output=path)
        assert conversion.report.ok
        assert conversion.written == Path(path)
        return path

    return form


def as_converted_onnx(model: nn.Module, to: str, inputs: Inputs) -> Any:
    """Export in eval mode with the BatchNorms kept, and convert the file."""
    path = exported(model, "kept.onnx", inputs)
    assert [layer.role for layer in normswap.find(path)] == ["eval"] * len(normswap.find(model))
    if to == "population":
        with pytest.raises(NothingToConvertError, match="already population"):
            normswap.convert(path, to, **asked(to))
        return path
    assert normswap.convert(path, to, **asked(to), output="converted.onnx").report.ok
    return "converted.onnx"


def as_program(model: nn.Module, to: str, inputs: Inputs) -> Any:
    """Export to a program with the BatchNorms kept, and convert that."""
    open_batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, inputs, dynamic_shapes=(open_batch,) * len(inputs))
    conversion = normswap.convert(program, to, **asked(to))
    assert conversion.report.ok
    return conversion.model


FORMS: dict[str, Callable[[nn.Module, str, Inputs], Any]] = {
    "module": as_module,
    ".onnx": as_file("o.onnx"),
    ".pt2": as_file("o.pt2"),
    ".onnx, converted itself": as_converted_onnx,
    "program, converted itself": as_program,
}


TRACED = {  # what takes torch's exporter seconds is tried on the targets of one network, and once on the others
    ".onnx": [("ResNet generator", "instance"), ("PatchGAN", "instance")],
    ".pt2": [("PatchGAN", "instance")],
}


@pytest.mark.parametrize(
    ("network", "to", "form"),
    [
        (network, to, form)
        for network in NETWORKS
        for to in NORMS
        for form in FORMS
        if network == "pix2pix U-Net" or (network, to) in TRACED.get(form, [(network, to)])
    ],
)
def test_every_form_computes_what_was_meant_and_passes(network: str, to: str, form: str) -> None:
    build, make = NETWORKS[network]
    model = with_batch_norms(build(), train=to == "population")  # else that is what it computes already
    after = FORMS[form](model, to, tuple(x[:2] for x in make()))
    for count in (1, 3):
        inputs = tuple(x[:count] for x in make())
        for found, expected in zip(computed(after, inputs), meant(model, to, inputs), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        report = normswap.verify(model, after, to, **asked(to), inputs=inputs)
        assert report.ok, report.to_text()
        assert len(report.planned) == len(normswap.find(model))
        if form == "module":
            assert report.needed == ("structure", "probes")
            assert report.verdict == f"equal to {NORMS[to].meaning}"
            continue
        assert not report.of("structure") and not report.of("probes")
        assert report.verdict == f"equal to {NORMS[to].meaning}, end to end on these inputs alone"
        untold = [note for note in report.notes if note.startswith("these inputs do not tell")]
        assert len(untold) == (count == 1 and to not in ("population", "group"))
        if untold:
            alike = {"instance": "batch-stat", "batch-stat": "instance", "blend": "blend"}  # with those of each sample
            assert untold[0].startswith(f"these inputs do not tell {to} from {alike[to]} (")


SHAPES_OF_CALLS = [
    ("a dict of outputs", ".onnx"),
    ("a dict of outputs", ".pt2"),
    ("inputs by keyword", ".onnx"),
    ("inputs by keyword", ".pt2"),
    ("float16", ".onnx"),
    ("BatchNorm1d, (N, C, L), train", ".pt2"),
]


@pytest.mark.parametrize(("name", "suffix"), SHAPES_OF_CALLS)
def test_inputs_and_outputs_of_every_shape_are_paired(name: str, suffix: str) -> None:
    model, inputs = MODULES[name].build(), MODULES[name].inputs()
    conversion = normswap.convert(model, "instance", inputs=inputs, output=f"o{suffix}")
    assert conversion.report.ok, conversion.report.to_text()
    report = normswap.verify(model, f"o{suffix}", "instance", inputs=inputs)
    assert report.ok, report.to_text()
    of_the_file = [check for check in conversion.report.of("end to end") if f"(o{suffix}, " in check.name]
    assert len(report.checks) == len(of_the_file) > 0
    assert not normswap.verify(model, f"o{suffix}", "batch-stat", inputs=inputs).ok


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_model_that_draws_random_numbers_is_exported_where_they_can_be_drawn_alike(suffix: str, folder: Path) -> None:
    model = nn.Sequential(seeded(lambda: nn.BatchNorm2d(3))(), nn.Dropout(0.5), nn.Tanh())
    inputs = shaped((2, 3, 6, 5))()
    if suffix == ".pt2":
        assert normswap.convert(model, "instance", inputs=inputs, output="o.pt2").report.ok
        return
    with pytest.raises(ModelWriteError, match=r"o\.onnx: the model draws random numbers; 1 in train mode") as raised:
        normswap.convert(model, "instance", inputs=inputs, output="o.onnx")
    assert raised.traceback  # while somebody holds the exception
    assert not list(folder.iterdir())
    assert normswap.convert(model.eval(), "instance", inputs=inputs, output="o.onnx").report.ok


# Wrong files.


class TwoHeads(nn.Module):
    """Two outputs of one shape, each from a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 4, 1, bias=False)
        self.second = nn.BatchNorm2d(4, eps=1e-3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.first(self.conv(x))
        return torch.tanh(y), self.second(self.last(torch.relu(y)))


def two_heads() -> nn.Module:
    """In train mode, so that every target changes it."""
    return seeded(TwoHeads, train=True)()


def picture() -> Inputs:
    return shaped((3, 3, 6, 5))()


@cache
def _right(to: str) -> bytes:
    exported(two_heads(), "kept.onnx", picture())
    if to != "population":
        assert normswap.convert("kept.onnx", to, **asked(to), output="kept.onnx.converted", force=True).report.ok
        os.replace("kept.onnx.converted", "kept.onnx")
    return Path("kept.onnx").read_bytes()


def right(to: str = "instance") -> onnx.ModelProto:
    """A correct file, made without normswap's exporter."""
    return onnx.load_from_string(_right(to))


def changed(edit: Callable[[onnx.ModelProto], object], to: str = "instance") -> Callable[[], onnx.ModelProto]:
    """Return a function that makes a correct file with one change."""

    def make() -> onnx.ModelProto:
        model = right(to)
        edit(model)
        return model

    return make


def norms_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    found = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert len(found) == 2
    return found


def with_eps(model: onnx.ModelProto) -> None:
    for node in norms_of(model):
        (eps,) = (attribute for attribute in node.attribute if attribute.name == "epsilon")
        eps.f = 0.1


def with_parameter(place: int, make: Callable[[Array], Array]) -> Callable[[onnx.ModelProto], None]:
    """Return a change of an input of every InstanceNormalization: 1 is gamma, 2 is beta."""

    def edit(model: onnx.ModelProto) -> None:
        names = {node.input[place] for node in norms_of(model)}
        for tensor in model.graph.initializer:
            if tensor.name in names:
                value = make(numpy_helper.to_array(tensor)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    return edit


def with_swapped_parameters(model: onnx.ModelProto) -> None:
    for node in norms_of(model):
        node.input[1], node.input[2] = node.input[2], node.input[1]


def with_another_convolution(model: onnx.ModelProto) -> None:
    (weight,) = (tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] == 3)
    value = numpy_helper.to_array(weight).copy()
    value[0, 0, 0, 0] += 0.01
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))


def with_last_operator(op_type: str, domain: str = "", **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    """Return a change that puts an operator before the first output."""

    def edit(model: onnx.ModelProto) -> None:
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["before it" if output == name else output for output in node.output]
        model.graph.node.append(helper.make_node(op_type, ["before it"], [name], domain=domain, **attributes))
        kind = model.graph.output[0].type.tensor_type
        kind.elem_type = attributes.get("to", kind.elem_type)
        kind.ClearField("shape")
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return edit


def with_swapped_outputs(model: onnx.ModelProto) -> None:
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(reversed(outputs))


def with_one_more(field: str) -> Callable[[onnx.ModelProto], None]:
    """Return a change that adds an input, or the first output again under another name."""

    def edit(model: onnx.ModelProto) -> None:
        value = getattr(model.graph, field).add()
        value.CopyFrom(getattr(model.graph, field)[0])
        value.name = "one more"
        if field == "output":
            model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["one more"]))

    return edit


def with_input_of(elem_type: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        name = model.graph.input[0].name
        model.graph.input[0].type.tensor_type.elem_type = elem_type
        for node in model.graph.node:
            node.input[:] = ["cast" if used == name else used for used in node.input]
        model.graph.node.insert(0, helper.make_node("Cast", [name], ["cast"], to=onnx.TensorProto.FLOAT))

    return edit


def with_fixed_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def half_converted() -> onnx.ModelProto:
    Path("population.onnx").write_bytes(_right("population"))
    first = normswap.find("population.onnx")[0].name
    normswap.convert("population.onnx", "instance", only=[first], output="half.onnx")
    return onnx.load("half.onnx")


@cache
def _by_dynamo() -> bytes:
    with silent():
        program = torch.onnx.export(two_heads(), picture(), dynamo=True, verbose=False)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def by_dynamo() -> onnx.ModelProto:
    """What torch's exporter makes of a model in train mode, without a word: BatchNorm folded in eval mode."""
    return onnx.load_from_string(_by_dynamo())


def by_torchscript() -> onnx.ModelProto:
    """A file whose BatchNorms have training_mode=1, and running statistics that the exporter has updated."""
    return onnx.load(exported(two_heads(), "train.onnx", picture(), training=True))


def in_train_mode() -> onnx.ModelProto:
    """A file whose BatchNorms have training_mode=1, and the module's running statistics."""
    model = right("population")
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            (mode,) = (attribute for attribute in node.attribute if attribute.name == "training_mode")
            mode.i = 1
            node.output.extend(f"{node.output[0]} {name}" for name in ("mean", "var"))
    return model


def optimized(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    """Return a function that applies onnxscript's optimizer, which folds BatchNorm with its running statistics."""

    def optimize() -> onnx.ModelProto:
        with silent():
            model = onnxscript.optimizer.optimize(make())
        assert isinstance(model, onnx.ModelProto)
        assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
        return model

    return optimize


POPULATION = "looks as if population was computed instead (eval-mode BatchNorm)"
BATCH_STAT = "looks as if batch-stat was computed instead (train-mode BatchNorm fed the same batch)"
INSTANCE = "looks as if instance was computed instead (train-mode BatchNorm fed one sample at a time)"
OFF = "FAILED end to end: [0] (as written): error"
WRONG: dict[str, tuple[Callable[[], onnx.ModelProto], str, str]] = {  # file, target, and what the report says
    "train mode, by dynamo": (by_dynamo, "instance", POPULATION),
    "train mode, by dynamo, as batch-stat": (by_dynamo, "batch-stat", POPULATION),
    "train mode, optimized": (optimized(in_train_mode), "batch-stat", POPULATION),
    "train mode, by TorchScript, optimized": (optimized(by_torchscript), "batch-stat", OFF),
    "train mode, as instance": (in_train_mode, "instance", BATCH_STAT),
    "never converted": (lambda: right("population"), "instance", POPULATION),
    "batch-stat as instance": (lambda: right("batch-stat"), "instance", BATCH_STAT),
    "batch-stat as population": (lambda: right("batch-stat"), "population", BATCH_STAT),
    "instance as batch-stat": (right, "batch-stat", INSTANCE),
    "instance as population": (right, "population", INSTANCE),
    "half converted": (half_converted, "instance", "FAILED end to end: [1] (as written): error"),
    "eps 1e-1": (changed(with_eps), "instance", OFF),
    "gamma dropped": (changed(with_parameter(1, np.ones_like)), "instance", OFF),
    "beta dropped": (changed(with_parameter(2, np.zeros_like)), "instance", OFF),
    "gamma reversed": (changed(with_parameter(1, np.flip)), "instance", OFF),
    "gamma and beta swapped": (changed(with_swapped_parameters), "instance", OFF),
    "another convolution": (changed(with_another_convolution), "instance", OFF),
    "another convolution, batch-stat": (changed(with_another_convolution, "batch-stat"), "batch-stat", OFF),
    "another convolution, population": (changed(with_another_convolution, "population"), "population", OFF),
    "outputs swapped": (changed(with_swapped_outputs), "instance", OFF),
    "an output missing": (
        changed(lambda model: model.graph.output.pop()),
        "instance",
        "outputs are paired by their order, and there are 1 (",
    ),
    "an output too many": (changed(with_one_more("output")), "instance", "and there are 3 ("),
    "an output of float16": (
        changed(with_last_operator("Cast", to=onnx.TensorProto.FLOAT16)),
        "instance",
        "expected float32(3, 4, 6, 5), found float16(3, 4, 6, 5)",
    ),
    "an output of float64": (
        changed(with_last_operator("Cast", to=onnx.TensorProto.DOUBLE)),
        "instance",
        "expected float32(3, 4, 6, 5), found float64(3, 4, 6, 5)",
    ),
    "an output with other axes": (
        changed(with_last_operator("Transpose", perm=[0, 1, 3, 2])),
        "instance",
        "expected float32(3, 4, 6, 5), found float32(3, 4, 5, 6)",
    ),
    "NaN": (changed(with_last_operator("Sqrt")), "instance", "elements are NaN or infinite on one side only"),
    "an input too many": (changed(with_one_more("input")), "instance", "where the graph takes 2 (in0, one more)"),
    "an input of float64": (
        changed(with_input_of(onnx.TensorProto.DOUBLE)),
        "instance",
        "the converted model does not run: input 'in0': expected float64, found float32",
    ),
    "another batch": (changed(with_fixed_batch), "instance", "the converted model does not run: input 'in0': expected"),
    "an unknown operator": (changed(with_last_operator("Twist", "d")), "instance", "the converted model does not run"),
}


@pytest.mark.parametrize(("make", "to", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_caught(make: Callable[[], onnx.ModelProto], to: str, says: str) -> None:
    onnx.save(make(), "wrong.onnx")
    report = normswap.verify(two_heads(), "wrong.onnx", to, **asked(to), inputs=picture())
    text = report.to_text()
    assert not report.ok
    assert says in text
    assert text.splitlines()[-1] == f"FAIL: NOT shown equal to {NORMS[to].meaning}"


@pytest.mark.parametrize("to", NORMS)
def test_the_files_that_were_made_wrong_were_right(to: str) -> None:
    onnx.save(right(to), "right.onnx")
    for inputs in (picture(), (picture()[0][:1],)):
        assert normswap.verify(two_heads(), "right.onnx", to, **asked(to), inputs=inputs).ok
    if to == "batch-stat":
        for make in (in_train_mode, by_torchscript):
            assert normswap.verify(two_heads(), make(), to, **asked(to), inputs=picture()).ok


@pytest.mark.parametrize("to", ["instance", "batch-stat"])
def test_one_sample_cannot_tell_instance_from_batch_stat(to: str) -> None:
    (other,) = {"instance", "batch-stat"} - {to}
    onnx.save(right(other), "other.onnx")
    inputs = picture()
    assert not normswap.verify(two_heads(), "other.onnx", to, **asked(to), inputs=inputs).ok
    report = normswap.verify(two_heads(), "other.onnx", to, **asked(to), inputs=(inputs[0][:1],))
    assert report.ok
    assert f"note: these inputs do not tell {to} from {other} ({NORMS[other].meaning})" in report.to_text()
    assert "population (eval-mode BatchNorm) would be off by" in report.to_text()
    assert not any(
        "do not tell" in note for note in normswap.verify(two_heads(), right(to), to, **asked(to), inputs=inputs).notes
    )


# What need not match, and what cannot be asked.


def renamed(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Give inputs, then outputs, other names."""
    values = [*model.graph.input, *model.graph.output]
    new = {value.name: name for value, name in zip(values, names, strict=True)}
    for value in values:
        value.name = new[value.name]
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    return model


def test_names_of_inputs_and_outputs_need_not_match() -> None:
    onnx.save(renamed(right(), ["photo", "second", "first"]), "renamed.onnx")
    assert normswap.verify(two_heads(), "renamed.onnx", "instance", inputs=picture()).ok


ORDERS = {  # names of the file's inputs and whether they stand the other way round, and whether that is right
    "other names, in order": (["a", "b"], False, True),
    "the same names, in order": (["condition", "image"], False, True),
    "the same names, in another order": (["condition", "image"], True, True),
    "other names, in another order": (["a", "b"], True, False),
    "the same names, of the wrong inputs": (["image", "condition"], False, False),
}


@pytest.mark.parametrize(("names", "turned", "ok"), ORDERS.values(), ids=ORDERS)
def test_inputs_are_paired_by_name_or_else_by_order(names: list[str], turned: bool, ok: bool) -> None:
    build, make = NETWORKS["PatchGAN"]
    model = renamed(onnx.load(as_converted_onnx(build(), "instance", make())), [*names, "y"])
    if turned:
        first, second = copy.deepcopy(list(model.graph.input))
        model.graph.input[0].CopyFrom(second)
        model.graph.input[1].CopyFrom(first)
    assert normswap.verify(build(), model, "instance", inputs=make()).ok is ok


def test_a_selection_holds_across_frameworks() -> None:
    onnx.save(half_converted(), "half.onnx")
    model = with_batch_norms(two_heads(), train=False)
    report = normswap.verify(model, "half.onnx", "instance", inputs=picture(), only=["first"])
    assert report.ok
    assert report.planned == ("first",)
    assert report.left == {"second": "not selected"}
    assert not normswap.verify(model, "half.onnx", "instance", inputs=picture(), only=["second"]).ok


def test_refused_layers_stay_as_they_are_across_frameworks() -> None:
    model, inputs = seeded(lambda: UNetGenerator(4, 5, bottleneck_norm=True))(), shaped((2, 3, 32, 32))()
    conversion = normswap.convert(model, "instance", inputs=inputs, allow_refusals=True)
    path = exported(conversion.model, "refused.onnx", inputs)
    with pytest.raises(RefusedLayersError, match=r"encoder\.4\.2: its input has one spatial element"):
        normswap.verify(model, path, "instance", inputs=inputs)
    report = normswap.verify(model, path, "instance", inputs=inputs, allow_refusals=True)
    assert report.ok
    assert list(report.left) == ["encoder.4.2"]


def test_either_side_may_be_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(right("population"), "kept.onnx")
    module = normswap.convert(two_heads(), "instance", inputs=picture(), output="o.pt2").model
    for after in (module, "o.pt2"):
        report = normswap.verify("kept.onnx", after, "instance")
        assert report.ok
        assert report.inputs.startswith("generated, seed 0: in0 2x3x")
        assert not normswap.verify("kept.onnx", after, "batch-stat").ok
    assert not normswap.verify("kept.onnx", two_heads(), "instance").ok
    assert main(["verify", "kept.onnx", "o.pt2", "--to", "instance"]) == 0
    capsys.readouterr()
    assert main(["verify", "kept.onnx", "o.pt2", "--to", "instance", "--no-end-to-end"]) == 2
    assert capsys.readouterr().err.startswith("normswap: the two models are of different frameworks and can only be")


def test_the_report_says_that_only_outputs_were_compared() -> None:
    report = normswap.verify(two_heads(), right(), "instance", inputs=picture())
    lines = report.to_text().splitlines()
    assert lines[:2] == ["structure   not run", "probes      not run"]
    assert lines[2].startswith("end to end  4 of 4 hold; worst ")
    assert lines[3:5] == [
        "inputs      given by the caller",
        "  note: the two models are of different frameworks: only outputs were compared, paired by their order",
    ]
    assert report.to_dict()["needed"] == ["end to end"]


def test_without_end_to_end_nothing_is_left_to_compare() -> None:
    with pytest.raises(CannotRunError, match=r"different frameworks and can only be compared end to end; leave out"):
        normswap.verify(two_heads(), right(), "instance", inputs=picture(), end_to_end=False)


def test_nothing_is_changed_by_a_comparison() -> None:
    model, inputs = two_heads(), picture()
    before = copy.deepcopy(model.state_dict()), [x.clone() for x in inputs], torch.random.get_rng_state()
    normswap.verify(model, right(), "instance", inputs=inputs)
    after = model.state_dict(), inputs, torch.random.get_rng_state()
    for one, other in zip(before[0].values(), after[0].values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(before[1][0], after[1][0])
    assert torch.equal(before[2], after[2])
    assert model.training


def test_inputs_are_made_as_the_file_declares_them(tmp_path: Path) -> None:
    module, path = MODULES["BatchNorm2d"].build(), tmp_path / "x.onnx"
    given = torch.rand(2, 3, 11, 9)  # which nobody guesses from the module
    assert normswap.convert(module, "instance", inputs=(given,), output=path).written == path
    report = normswap.verify(module, path, "instance")
    assert report.ok, report.to_text()
    assert report.inputs.endswith("x 2x3x11x9, as the converted model declares them")
