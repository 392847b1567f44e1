"""Exported programs: what is found, what a conversion changes and what not, and what the verifier rejects."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from support.models.modules import seeded, shaped
from support.models.programs import IMAGE, PROGRAMS, Net, exported, quietly
from support.oracles.mutants import GROSS, MUTANTS, Mutant, Wrong, is_mutant
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

import normswap
from normswap import NORMS, Report
from normswap.backends.inputs import feeds_of
from normswap.backends.torch import program as torch_program
from normswap.backends.torch.fx import compare_graphs, cut, swap
from normswap.backends.torch.nodes import node_layers
from normswap.backends.torch.program import ProgramModel
from normswap.errors import CannotRunError, UnsupportedModelError
from normswap.options import Options
from normswap.plan import Plan, make_plan
from normswap.verify import verify_conversion

BACKEND: Any = torch_program


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors of a few hundred numbers are slower on several threads, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def model_of(name: str) -> ProgramModel:
    """A program of the table, which no test changes."""
    return torch_program.load(PROGRAMS[name].build())


def plan_of(model: ProgramModel, to: str, *, only: tuple[str, ...] = ()) -> Plan:
    return make_plan(NORMS[to], torch_program.find(model), only=only)


def converted(name: str, to: str, *, only: tuple[str, ...] = ()) -> tuple[ProgramModel, ProgramModel, Plan]:
    model = model_of(name)
    plan = plan_of(model, to, only=only)
    return model, torch_program.rewrite(model, plan), plan


def verified(before: ProgramModel, after: ProgramModel, plan: Plan, *, inputs: Any = None) -> Report:
    return verify_conversion(BACKEND, before, after, plan, feeds=feeds_of(torch_program, before, inputs, {}, 0))


def called(program: ExportedProgram, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return quietly(lambda: program.module()(*args, **kwargs))


def everything_of(program: ExportedProgram) -> list[Any]:
    """All that a program is, as values that can be compared."""
    tensors = {**program.state_dict, **program.constants}
    environments = {
        id(value.fake_mode.shape_env): value.fake_mode.shape_env
        for node in program.graph.nodes
        if isinstance(value := node.meta.get("val"), Tensor) and hasattr(value, "fake_mode")
    }
    return [
        str(program.graph),
        [(node.name, sorted(node.meta), str(node.meta.get("val"))) for node in program.graph.nodes],
        str(program.graph_signature),
        str(program.range_constraints),
        [str(entry) for entry in program.module_call_graph],
        {name: (id(t), t.detach().clone().view(-1).tolist(), t.requires_grad) for name, t in tensors.items()},
        [(len(env.guards), str(env.replacements), str(env.var_to_range)) for env in environments.values() if env],
        getattr(program, "_guards_code", []),
    ]


CONVERSIONS = [
    (name, to)
    for name, case in PROGRAMS.items()
    for to in NORMS
    if not (to == "instance" and case.no_instance)
    and (
        {"eval", "train"}  # population takes the place of train alone, instance that of batch statistics too
        - ({"eval"} if to == "population" else set())
        | ({"batch-stat"} if to == "instance" else set())
    )
    & {role for layer, role in case.roles.items() if layer not in case.refused}
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_batch_norm_is_found(name: str) -> None:
    case, layers = PROGRAMS[name], torch_program.find(model_of(name))
    assert {layer.name: layer.role for layer in layers} == case.roles
    blocked = {layer.name: layer.blocked for layer in layers if layer.blocked}
    assert blocked.keys() == case.refused.keys()
    assert all(words in blocked[layer] for layer, words in case.refused.items())
    refusals = {refusal.layer.name: refusal.reason for refusal in plan_of(model_of(name), "instance").refusals}
    assert all(words in refusals[layer] for layer, words in case.no_instance.items())


@pytest.mark.parametrize(("name", "to"), CONVERSIONS)
def test_a_conversion_verifies_and_changes_nothing_of_the_original(name: str, to: str) -> None:
    before = everything_of(model_of(name).program)
    model, after, plan = converted(name, to)
    report = verified(model, after, plan)
    assert report.ok, report.to_text()
    assert [check.witness for check in report.checks][-1] == "end to end"
    assert everything_of(model.program) == before
    quietly(after.program.validate)
    assert not {value.data_ptr() for value in after.program.state_dict.values()} & {
        value.data_ptr() for value in model.program.state_dict.values()
    }
    removed = PROGRAMS[name].removed
    if to == "instance" and removed is not None:
        assert len(model.program.state_dict) - len(after.program.state_dict) == removed


@pytest.mark.parametrize(("name", "to"), CONVERSIONS)
def test_what_is_converted_is_found_as_the_target(name: str, to: str) -> None:
    _, after, plan = converted(name, to)
    left = {layer.name: layer.role for layer in torch_program.find(after)}
    kept = {one.layer.name for one in plan.kept} | {one.layer.name for one in plan.refusals}
    if to == "population":
        assert {layer.name for layer in plan.layers} <= left.keys()
        assert all(left[layer.name] == "eval" for layer in plan.layers)
    else:
        assert left.keys() == kept


@pytest.mark.parametrize("to", ["instance", "batch-stat"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_converted_program_is_the_module_in_train_mode(mode: str, to: str) -> None:
    """Against the module itself, without any of this backend's own reference."""
    model = seeded(Net)().train()
    after = converted(mode, to)[1].program
    (x,) = shaped(IMAGE)()
    with torch.no_grad():
        expected = torch.cat([model(sample) for sample in torch.split(x, 1)]) if to == "instance" else model(x)
    torch.testing.assert_close(called(after, x), expected, rtol=1e-5, atol=1e-5)


def test_samples_of_a_dynamic_batch_do_not_mix() -> None:
    after = converted("dynamic batch", "instance")[1].program
    (x,) = shaped((5, *IMAGE[1:]))()
    whole = called(after, x)
    torch.testing.assert_close(
        torch.cat([called(after, sample) for sample in torch.split(x, 1)]), whole, rtol=1e-5, atol=1e-5
    )


def test_running_a_program_changes_neither_its_tensors_nor_the_inputs() -> None:
    model = model_of("writes in place")
    before = everything_of(model.program)
    (feed,) = feeds_of(torch_program, model, None, {}, 0)
    given = {name: value.clone() for name, value in feed.arrays.items()}
    plan = plan_of(model, "instance")
    torch_program.run(model, feed.arrays, how="exported")
    torch_program.run_reference(model, plan, feed.arrays, noise=0.0, seed=0)
    assert everything_of(model.program) == before
    assert all(torch.equal(value, feed.arrays[name]) for name, value in given.items())


def test_calls_that_share_statistics_are_converted_together_or_not_at_all() -> None:
    for name in ("called twice, train", "called twice, train, decomposed"):
        plan = plan_of(model_of(name), "batch-stat", only=("bn",))
        assert not plan.layers
        assert "select all of its calls or none" in plan.refusals[0].reason
    plan = plan_of(model_of("called twice"), "batch-stat", only=("bn#2",))
    before, after = model_of("called twice"), torch_program.rewrite(model_of("called twice"), plan)
    assert verified(before, after, plan).ok
    assert len(after.program.state_dict) == len(before.program.state_dict)


def test_updates_of_other_buffers_stay() -> None:
    _, after, _ = converted("structured", "instance")
    module = quietly(after.program.module)
    args = (*shaped(IMAGE)(), {"scale": torch.full((1,), 1.5)})
    with torch.no_grad():
        first, second = (module(*args, gain=2.0)["more"][0].item() for _ in range(2))
    assert (first, second) == (2.5, 3.5)
    assert [spec.target for spec in after.program.graph_signature.output_specs if spec.target] == ["calls"]


def test_a_partial_plan_leaves_the_other_layers_updates() -> None:
    model, after, plan = converted("train, decomposed", "instance", only=("last",))
    assert verified(model, after, plan).ok
    stored = {spec.target for spec in after.program.graph_signature.output_specs if spec.target}
    assert stored == {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert "last.running_mean" not in after.program.state_dict


def test_the_memory_format_that_later_views_need_is_kept() -> None:
    model, after, plan = converted("memory format", "instance")
    assert verified(model, after, plan).ok
    assert any(node.kwargs.get("memory_format") == torch.channels_last for node in after.program.graph.nodes)


def test_symbolic_sizes_are_assumed_nothing_of() -> None:
    """What tracing noted is computed for the new nodes, without a guard more."""
    model, after, _ = converted("dynamic batch and sizes, decomposed", "batch-stat")
    assert all("val" in node.meta for node in after.program.graph.nodes if node.op == "call_function")
    assert str(model.program.range_constraints) == str(after.program.range_constraints)
    sizes = [(1, 3, 5, 9), (4, 3, 16, 2)]
    for size in sizes:
        assert called(after.program, *shaped(size)()).shape == (size[0], 2, *size[2:])


def test_new_nodes_say_where_they_are_from() -> None:
    model, after, _ = converted("eval", "batch-stat")
    before = {node.name: node for node in model.program.graph.nodes}
    named = {node.name: node for node in after.program.graph.nodes}
    for key in ("nn_module_stack", "stack_trace", "torch_fn"):
        assert named["batch_norm"].meta[key] == before["batch_norm"].meta[key]
    fresh = [node for name, node in named.items() if name not in before]
    assert fresh
    for node in fresh:
        (_, (path, _)) = list(node.meta["nn_module_stack"].items())[-1]
        assert path in ("bn", "last")


@pytest.mark.parametrize("to", ["instance", "batch-stat"])
@pytest.mark.parametrize(
    "name", ["train", "dynamic batch and sizes, train", "eval, decomposed", "bfloat16, train", "structured"]
)
def test_a_converted_program_decomposes(name: str, to: str) -> None:
    model, after, _ = converted(name, to)
    decomposed = quietly(after.program.run_decompositions)
    (feed,) = feeds_of(torch_program, model, None, {}, 0)
    one, other = (
        torch_program.run(torch_program.load(program), feed.arrays, how="exported").outputs
        for program in (after.program, decomposed)
    )
    assert one.keys() == other.keys()
    for place, value in one.items():
        np.testing.assert_allclose(value.astype(float), other[place].astype(float), rtol=1e-2, atol=1e-5)
    roles = {layer.role for layer in torch_program.find(torch_program.load(decomposed))}
    assert roles == ({"instance"} if to == "instance" else set())


EXPORTED_AS = {"instance": "InstanceNormalization", "batch-stat": "ReduceMean"}


@pytest.mark.parametrize("to", EXPORTED_AS)
@pytest.mark.parametrize("name", ["train", "dynamic batch"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_converted_program_exports_to_onnx(name: str, to: str, tmp_path: Path) -> None:
    import onnxruntime

    _, after, _ = converted(name, to)
    (x,) = shaped(IMAGE)()
    onnx_program = torch.onnx.export(after.program, (), dynamo=True, verbose=False)
    assert onnx_program is not None
    operators = [node.op_type for node in onnx_program.model_proto.graph.node]
    assert EXPORTED_AS[to] in operators and "BatchNormalization" not in operators
    path = tmp_path / "model.onnx"
    onnx_program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, called(after.program, x).numpy(), rtol=1e-4, atol=1e-4)


# Mutants. A verifier is worth what it rejects.


BODIES = ["eval", "train, decomposed", "rank 3", "float16", "float64, decomposed", "dynamic batch"]


def mutated(name: str, to: str, wrong: Wrong) -> tuple[ProgramModel, ProgramModel, Plan]:
    model = model_of(name)
    plan = plan_of(model, to)
    return model, torch_program.rewrite(model, replace(plan, norm=Mutant(plan.norm, wrong))), plan


def targets_of(name: str) -> list[str]:
    return [to for to in NORMS if to != "population" or "train" in name]


@pytest.mark.parametrize("name", BODIES)
def test_the_right_operators_pass(name: str) -> None:
    for to in targets_of(name):
        report = verified(*mutated(name, to, Wrong()))
        assert report.ok, report.to_text()


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_probes_reject_a_wrong_rewrite_of_every_layer(mutant: str, name: str) -> None:
    wrong = MUTANTS[mutant]
    for to in targets_of(name):
        if is_mutant(wrong, NORMS[to]):
            before, after, plan = mutated(name, to, wrong)
            report = verify_conversion(BACKEND, before, after, plan, feeds=None)
            probes = report.of("probes")
            assert [check.name for check in probes] == [layer.name for layer in plan.layers]
            assert not any(check.ok for check in probes) and not report.ok


@pytest.mark.parametrize("mutant", GROSS)
@pytest.mark.parametrize("to", ["instance", "batch-stat"])
def test_end_to_end_rejects_it_by_itself(mutant: str, to: str) -> None:
    if is_mutant(MUTANTS[mutant], NORMS[to]):
        before, after, plan = mutated("train", to, MUTANTS[mutant])
        report = verified(before, replace(after), plan)
        checks = [check for check in report.checks if check.witness == "end to end"]
        assert not any(check.ok for check in checks) and not report.ok


def test_statistics_from_before_an_update_are_rejected() -> None:
    """A blend that reads what is stored, where the layer reads what an earlier call has made of it."""
    before, after, plan = converted("train, then eval, decomposed", "blend")
    updated, stored = (node_of(after, name) for name in ("getitem_3", "b_bn_running_mean"))
    blends = [node for node in updated.users if node.target is torch.ops.aten.view.default]
    assert len(blends) == 1
    blends[0].replace_input_with(updated, stored)
    report = verify_conversion(BACKEND, before, after, plan, feeds=None)
    assert not any(check.ok for check in report.of("probes"))


Edit = Callable[[ProgramModel], "ProgramModel | None"]


def node_of(model: ProgramModel, name: str) -> fx.Node:
    named: dict[str, fx.Node] = {node.name: node for node in model.program.graph.nodes}
    return named[name]


def left_as_it_was(model: ProgramModel) -> ProgramModel:
    return model_of("train, decomposed")


def one_left_as_it_was(model: ProgramModel) -> ProgramModel:
    before = model_of("train, decomposed")
    return torch_program.rewrite(before, plan_of(before, "instance", only=("bn",)))


def one_bit(model: ProgramModel) -> None:
    weight = model.program.state_dict["conv.weight"].data
    weight.view(torch.uint8).view(-1)[0] ^= 1


def sign_of_zero(model: ProgramModel) -> None:
    bias = model.program.state_dict["conv.bias"].data
    bias[0] = -bias[0] * 0.0


def nan(model: ProgramModel) -> None:
    model.program.state_dict["bn.bias"].data[1] = torch.nan


def a_parameter_is_a_buffer(model: ProgramModel) -> None:
    model.program.state_dict["conv.bias"] = model.program.state_dict["conv.bias"].detach()


def another_gradient(model: ProgramModel) -> None:
    model.program.state_dict["conv.bias"].requires_grad_(False)


def tensor_gone(model: ProgramModel) -> None:
    del model.program.state_dict["head.bias"]


def tensor_new(model: ProgramModel) -> None:
    model.program.state_dict["new"] = torch.zeros(3)


def stride_changed(model: ProgramModel) -> None:
    node = node_of(model, "convolution")
    node.args = (*node.args[:4], [2, 2], *node.args[5:])


def another_operator(model: ProgramModel) -> None:
    node_of(model, "relu").target = torch.ops.aten.tanh.default


def another_argument(model: ProgramModel) -> None:
    node = node_of(model, "convolution_1")
    node.args = (node.args[0], *node.args[1:2], None, *node.args[3:])


def extra_node(model: ProgramModel) -> None:
    relu = node_of(model, "relu")
    with model.program.graph.inserting_after(relu):
        model.program.graph.call_function(torch.ops.aten.neg.default, (relu,))


def never_reached(model: ProgramModel) -> None:
    """The layer is there, but what read it reads its input instead."""
    y = node_of(model, "getitem")
    y.replace_all_uses_with(node_of(model, "convolution"))


def gone(model: ProgramModel) -> None:
    never_reached(model)
    model.program.graph.erase_node(node_of(model, "getitem"))


def reads_another_value(model: ProgramModel) -> None:
    y = node_of(model, "getitem_5")
    y.args = (node_of(model, "relu"), *y.args[1:])


def reads_no_weight(model: ProgramModel) -> None:
    y = node_of(model, "getitem_5")
    y.args = (y.args[0], None, *y.args[2:])


def eps_of_another(model: ProgramModel) -> None:
    y = node_of(model, "getitem")
    y.args = tuple(1.01e-4 if value == 1e-4 else value for value in y.args)


def writes_into_its_input(model: ProgramModel) -> None:
    """Twice and halved is the same to the layer, not to what reads its input beside."""
    y = node_of(model, "getitem")
    with model.program.graph.inserting_before(y):
        doubled = model.program.graph.call_function(torch.ops.aten.mul_.Tensor, (y.args[0], 2.0))
        halved = model.program.graph.call_function(torch.ops.aten.mul.Tensor, (doubled, 0.5))
    y.args = (halved, *y.args[1:])


def the_old_layer_still_there(model: ProgramModel) -> None:
    y = node_of(model, "getitem")
    with model.program.graph.inserting_before(y):
        model.program.graph.create_node(
            "call_function",
            torch.ops.aten.neg.default,
            (y.args[0],),
            name="_native_batch_norm_legit_functional",
        )


def another_range(model: ProgramModel) -> None:
    model.program._guards_code.append("L['x'].size()[0] >= 2")


def another_name_of_the_argument(model: ProgramModel) -> None:
    signature = model.program.module_call_graph[0].signature
    assert signature is not None
    signature.forward_arg_names = ["image"]


def input_stored_elsewhere(model: ProgramModel) -> None:
    specs = model.program.graph_signature.input_specs
    index = next(i for i, spec in enumerate(specs) if spec.target == "conv.bias")
    specs[index] = replace(specs[index], target="head.bias")


def another_declared_shape(model: ProgramModel) -> None:
    node = node_of(model, "x")
    node.meta["val"] = node.meta["val"][:1]


def another_output(model: ProgramModel) -> None:
    output = node_of(model, "output")
    output.args = ((node_of(model, "convolution_1"),),)


def another_example(model: ProgramModel) -> None:
    assert model.program.example_inputs is not None
    args, kwargs = model.program.example_inputs
    model.program._example_inputs = ((args[0] + 1,), kwargs)


def running_statistics_still_updated(model: ProgramModel) -> None:
    """A train-mode batch_norm for batch-stat would give the right values and write into buffers."""
    y = node_of(model, "getitem")
    x, weight, bias = y.args[:3]
    mean = node_of(model, "p_conv_bias")
    y.target = torch.ops.aten.batch_norm.default
    y.args = (x, weight, bias, mean, mean, True, 0.1, 1e-4, False)


EDITS: list[Edit] = [
    left_as_it_was, one_left_as_it_was, one_bit, sign_of_zero, nan, a_parameter_is_a_buffer, another_gradient,
    tensor_gone, tensor_new, stride_changed, another_operator, another_argument, extra_node, never_reached, gone,
    reads_another_value, reads_no_weight, eps_of_another, writes_into_its_input,
    the_old_layer_still_there, another_range, another_name_of_the_argument, input_stored_elsewhere,
    another_declared_shape, another_output, another_example, running_statistics_still_updated,
]  # fmt: skip


SEEN_BY_PROBES_ALONE = [reads_no_weight, eps_of_another]


def test_an_unedited_conversion_passes() -> None:
    assert verified(*converted("train, decomposed", "instance")).ok


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edited_conversion_fails(edit: Edit) -> None:
    before, after, plan = converted("train, decomposed", "instance")
    after = edit(after) or after
    report = verified(before, after, plan)
    assert not report.ok
    seen = any(not check.ok for check in report.of("structure"))
    assert seen != (edit in SEEN_BY_PROBES_ALONE), report.to_text()


def test_a_layer_moved_past_an_operator_that_writes_in_place_fails() -> None:
    before, after, plan = converted("writes in place", "instance")
    node_of(after, "add__1").append(node_of(after, "batch_norm"))
    details = [check.detail for check in verified(before, after, plan).of("structure")]
    assert any("the order of nodes differs" in detail for detail in details)


def test_a_change_inside_a_branch_that_does_not_run_fails() -> None:
    before, after, plan = converted("branches", "instance")
    assert verified(before, after, plan).ok
    branch = copy.deepcopy(after.program.graph_module.false_graph_0)
    assert isinstance(branch, fx.GraphModule)
    node = next(node for node in branch.graph.nodes if node.target == torch.ops.aten.mul.Tensor)
    node.args = (node.args[0], 3)
    after.program.graph_module.false_graph_0 = branch
    details = [check.detail for check in verified(before, after, plan).of("structure")]
    assert any("false_graph_0" in detail for detail in details)


def test_stored_statistics_are_probed_for_population() -> None:
    before, after, plan = converted("train", "population")
    for name in ("bn.running_mean", "bn.running_var"):
        edited = torch_program.rewrite(before, plan)
        edited.program.state_dict[name] *= 1.001
        assert not verified(before, edited, plan).ok
    assert verified(before, after, plan).ok


def test_a_target_that_updates_running_statistics_is_no_conversion() -> None:
    before, after, plan = converted("train", "batch-stat")
    named = {node.name: node for node in before.program.graph.nodes}
    layer = next(layer for layer in torch_program.find(before) if layer.name == "bn")
    assert layer.role == "train"
    # The original's own node under a new name gives the right values, and goes on writing into its buffers.
    kept = torch_program.rewrite(before, replace(plan, layers=plan.layers[1:]))
    node = node_of(kept, "batch_norm")
    with kept.program.graph.inserting_after(node):
        renamed = kept.program.graph.call_function(torch.ops.aten.clone.default, (node,))
    node.replace_all_uses_with(renamed, delete_user_cb=lambda user: user is not renamed)
    node.name, renamed.name = "inner", named["batch_norm"].name
    details = [check.detail for check in verified(before, kept, plan).of("structure")]
    assert any("does more than to compute a value" in detail for detail in details)
    assert verified(before, after, plan).ok


def test_random_programs_are_compared_with_their_randomness_fixed() -> None:
    model, after, plan = converted("mixed kinds, train", "instance")
    for seed in range(5):
        report = verify_conversion(
            BACKEND, model, after, plan, Options(seed=seed), feeds=feeds_of(torch_program, model, None, {}, 0)
        )
        assert report.ok, report.to_text()


# Inputs.


def test_examples_are_used_where_nothing_is_given() -> None:
    (feed,) = feeds_of(torch_program, model_of("eval"), None, {}, 0)
    assert feed.source == "the program's own example inputs"
    torch.testing.assert_close(feed.arrays["x"], shaped(IMAGE)()[0])


def without_examples(name: str) -> ProgramModel:
    program = copy.copy(model_of(name).program)
    program._example_inputs = None
    return ProgramModel(program)


def test_inputs_are_generated_for_the_sizes_that_are_declared() -> None:
    model = without_examples("dynamic batch and sizes, train")
    feeds = feeds_of(torch_program, model, None, {}, 3)
    assert feeds[0].source == "generated, seed 3: x 2x3x8x6"
    assert [tuple(feed.arrays["x"].shape) for feed in feeds[1:3]] == [(2, 3, 32, 32), (2, 3, 64, 64)]
    (feed,) = feeds_of(torch_program, without_examples("bfloat16, train"), None, {}, 0)
    assert feed.arrays["x"].dtype == torch.bfloat16
    plan = plan_of(model, "instance")
    report = verify_conversion(BACKEND, model, torch_program.rewrite(model, plan), plan, feeds=feeds)
    assert report.ok and report.inputs == feeds[0].source


def test_generated_sizes_stay_within_their_ranges() -> None:
    dynamic = ({0: torch.export.Dim("batch", min=4, max=6), 2: 2 * torch.export.Dim("half", min=9, max=20)},)
    program = exported(Net, (4, 3, 22, 6), dynamic=dynamic)()
    program._example_inputs = None
    feeds = feeds_of(torch_program, torch_program.load(program), None, {}, 0)
    sizes = {tuple(feed.arrays["x"].shape) for feed in feeds}
    assert (4, 3, 22, 6) in sizes
    assert all(4 <= n <= 6 and 18 <= h <= 40 and h % 2 == 0 and (c, w) == (3, 6) for n, c, h, w in sizes)


def test_shapes_are_taken_by_name() -> None:
    model = model_of("dynamic batch and sizes, train")
    assert feeds_of(torch_program, model, None, {"x": (3, 3, 4, 7)}, 0)[0].arrays["x"].shape == (3, 3, 4, 7)
    with pytest.raises(CannotRunError, match="--shape names 'y', which is not an input; the program takes x"):
        feeds_of(torch_program, model, None, {"y": (1,)}, 0)


@pytest.mark.parametrize("form", ["tensor", "tuple", "list", "mapping", "array", "npz", "npz by order"])
def test_inputs_are_taken_in_every_form(form: str, tmp_path: Path) -> None:
    (x,) = shaped(IMAGE)()
    path = tmp_path / "inputs.npz"
    if form == "npz":
        np.savez(path, x=x.numpy())
    else:
        np.savez(path, image=x.numpy())
    forms = {"tensor": x, "tuple": (x,), "list": [x], "mapping": {"x": x}, "array": x.numpy()}
    (feed,) = feeds_of(torch_program, model_of("eval"), forms.get(form, path), {}, 0)
    torch.testing.assert_close(feed.arrays["x"], x)
    sources = {"npz": f"given: {path}", "npz by order": f"given: {path}: x 2x3x8x6"}
    assert feed.source == sources.get(form, "given by the caller")


def test_structured_inputs_are_taken_as_the_program_takes_them() -> None:
    model, after, plan = converted("structured", "instance")
    (x,), scale = shaped(IMAGE)(), torch.full((1,), 0.5)
    given = {"x": x, "options": {"scale": scale}, "gain": 2.0}
    (feed,) = feeds_of(torch_program, model, given, {}, 0)
    assert list(feed.arrays) == ["x", "options_scale"]
    assert verified(model, after, plan, inputs=given).ok
    assert list(torch_program.run(model, feed.arrays, how="exported").outputs) == [
        "['y']",
        "['more'][0]",
        "['more'][2]",
    ]
    with pytest.raises(CannotRunError, match=r"'gain': the program was exported for 2\.0 alone, found 3\.0"):
        feeds_of(torch_program, model, {**given, "gain": 3.0}, {}, 0)
    with pytest.raises(CannotRunError, match="have no 'options'"):
        feeds_of(torch_program, model, {"x": x, "gain": 2.0}, {}, 0)
    with pytest.raises(CannotRunError, match="not arranged as the program takes them"):
        feeds_of(torch_program, model, (x,), {}, 0)


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = model_of("dynamic batch")
    for wrong, said in {
        "expected float32, found float64": torch.zeros(IMAGE, dtype=torch.float64),
        "expected shape": torch.zeros(2, 4, 8, 6),
        "expected a tensor, found str": "x",
    }.items():
        with pytest.raises(CannotRunError, match=wrong):
            feeds_of(torch_program, model, (said,), {}, 0)
    plan = plan_of(model, "instance")
    with pytest.raises(CannotRunError, match="the model raised"):  # its range ends at 64
        torch_program.run_reference(model, plan, {"x": torch.zeros(65, *IMAGE[1:])}, noise=0.0, seed=0)


def test_plain_and_fit_are_the_way_to_other_frameworks_and_back() -> None:
    model = model_of("bfloat16, train")
    (feed,) = feeds_of(torch_program, model, None, {}, 0)
    plain = torch_program.inputs(model).to_arrays(feed.arrays)
    assert plain["x"].dtype == ml_dtypes.bfloat16
    for arrays in (plain, {"another name": plain["x"]}):
        assert torch.equal(torch_program.inputs(model).fit(arrays)["x"], feed.arrays["x"])
    with pytest.raises(CannotRunError, match=r"2 arrays .* where the program takes 1: x"):
        torch_program.inputs(model).fit({"a": plain["x"], "b": plain["x"]})
    arrays = {"options_scale": np.ones(1, np.float32), "x": np.ones(IMAGE, np.float32)}
    two = torch_program.inputs(model_of("structured")).fit(arrays)
    assert list(two) == ["x", "options_scale"]


# The rest of what a backend offers.


def test_a_program_without_values_is_refused() -> None:
    with torch.device("meta"):
        model, x = Net().eval(), torch.zeros(IMAGE)
    with pytest.raises(UnsupportedModelError, match="has a shape but no values"):
        torch_program.load(torch.export.export(model, (x,)))


def test_a_program_is_not_converted_in_place() -> None:
    with pytest.raises(UnsupportedModelError, match="in_place is for"):
        normswap.convert(model_of("eval").program, "instance", in_place=True)


def test_remarks() -> None:
    _, after, _ = converted("eval", "instance")
    said = torch_program.remarks(after, torch_program.find(after))
    assert said == [
        "no BatchNorm is left in this program",
        "it normalizes each sample by itself already in 2 instance_norm or group_norm operators",
    ]
    mixed = model_of("mixed kinds, train")
    assert "in 2 instance_norm or group_norm operators" in torch_program.remarks(mixed, torch_program.find(mixed))[0]


# Graphs that know no shapes, as torch.fx.symbolic_trace makes them.


class CallsAFunction(nn.Module):
    """What symbolic_trace records as a call of F.batch_norm on tensors of the module."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Any:
        y = torch.tanh(x) * 3
        return F.batch_norm(y, self.mean, self.var, self.weight, self.bias, False, 0.1, 1e-3) + y  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["instance", "batch-stat"])
def test_a_graph_without_shapes_is_swapped_for_every_rank(to: str) -> None:
    module = torch.fx.symbolic_trace(CallsAFunction())
    original = torch.fx.symbolic_trace(CallsAFunction())
    original.load_state_dict(module.state_dict())

    def resolve(node: fx.Node) -> Tensor | None:
        value = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        return value if isinstance(value, Tensor) else None

    (layer,) = node_layers(module.graph, resolve)
    assert (layer.layer.role, layer.layer.rank, layer.layer.blocked) == ("eval", None, "")
    swap(module.graph, layer, NORMS[to])
    module.graph.lint()
    module.recompile()
    assert not compare_graphs(original.graph, module.graph, {layer.y.name: "bn"})
    (left,) = compare_graphs(original.graph, original.graph, {layer.y.name: "bn"})
    assert left == ("bn: the layer was left as it was", "bn")
    alone = cut(module.graph, layer.y.name, "mul", resolve, {})
    assert (
        cut(module.graph, layer.y.name, "nothing", resolve, {}) == "it depends on 'x', which is known at run time only"
    )
    for shape in [(3, 4, 5), (2, 4, 3, 5), (2, 4, 3, 2, 2)] + [(6, 4)] * (to == "batch-stat"):
        (x,) = shaped(shape)()
        y = torch.tanh(x) * 3
        expected = NORMS[to].reference(y.numpy(), layer.layer)
        assert not isinstance(alone, str)
        np.testing.assert_allclose(alone(y), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(module(x) - y, expected, rtol=1e-4, atol=1e-4)
