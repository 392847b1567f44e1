"""One list of options: what the library takes by name agrees with it, for Python, type checkers and readers alike."""

from __future__ import annotations

import ast
import doctest
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args

import click
import numpy as np
import pytest
from support import ROOT
from support.models.small_models import ONE_LAYER, built

import normswap
from normswap import cli
from normswap.cli.options import report_format_of
from normswap.cli.pair import Pair
from normswap.cli.settings import keys_of_pairs
from normswap.cli.values import READINGS
from normswap.diagnosis.options import Diagnosing
from normswap.norms import Blend, Keywords, all_parameters
from normswap.options import (
    Comparison,
    Converting,
    Kind,
    Options,
    Planning,
    Scope,
    Verifying,
    keywords_of,
    option_of,
    spelled,
)
from normswap.recalibration.options import Recalibrating
from normswap.testing import assert_equivalent

TAKES: dict[str, tuple[Callable[..., Any], type]] = {
    "plan": (normswap.plan, Planning),
    "convert": (normswap.convert, Converting),
    "verify": (normswap.verify, Verifying),
    "assert_equivalent": (assert_equivalent, Verifying),
    "diagnose": (normswap.diagnose, Diagnosing),
    "recalibrate": (normswap.recalibrate, Recalibrating),
}


@pytest.mark.parametrize(("function", "arguments"), TAKES.values(), ids=TAKES)
def test_a_signature_has_the_fields_and_the_parameters_of_targets(
    function: Callable[..., Any], arguments: type
) -> None:
    signature = inspect.signature(function)
    defaults = {declared.name: declared.default for declared in fields(arguments)}
    assert set(signature.parameters) == defaults.keys() | (all_parameters().keys() if "to" in defaults else set())
    for name, parameter in signature.parameters.items():
        if name in defaults and parameter.default is not inspect.Parameter.empty:
            assert parameter.default == defaults[name]
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert not isinstance(parameter.annotation, str), "help() shows no type"
    documented = inspect.getdoc(function) or ""
    assert all(f"\n    {name}: " in documented for name in signature.parameters)
    assert documented.index("Args:") < documented.index("Raises:")


def test_assert_equivalent_takes_what_verify_takes() -> None:
    assert inspect.signature(assert_equivalent) == inspect.signature(normswap.verify)


def test_convert_and_verify_share_the_options() -> None:
    shared = {declared.name for declared in fields(Options)}
    assert shared <= {declared.name for declared in fields(Converting)} & {
        declared.name for declared in fields(Verifying)
    }
    assert {declared.name for declared in fields(Scope)} < shared
    assert keywords_of(Options(seed=3)) == {declared.name: declared.default for declared in fields(Options)} | {
        "seed": 3
    }


def test_every_help_text_is_sentences() -> None:
    for arguments in (Planning, Converting, Pair, Diagnosing, Recalibrating):
        for declared in fields(arguments):
            found = option_of(declared)
            assert all(text[0].isupper() and text.endswith(".") for text in (found.help, found.python) if text)


def test_type_checkers_know_the_parameters_of_targets() -> None:
    tree = ast.parse(inspect.getsource(Keywords))
    assert {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)} == all_parameters().keys()  # type: ignore[union-attr]  # all are names


def test_a_target_is_given_by_name_or_as_a_norm() -> None:
    model = built(ONE_LAYER)
    named = normswap.convert(model, "blend", prior=16, over="batch", seed=3)
    made = normswap.convert(model=model, to=Blend(16, "batch"), seed=3)
    assert named.model.proto == made.model.proto
    assert named.plan.norm.parameters == made.plan.norm.parameters == {"prior": 16.0, "over": "batch"}
    assert normswap.plan(model, Blend(16)).norm.meaning == normswap.plan(model, "blend", prior=16).norm.meaning
    assert normswap.verify(model, made.model, Blend(16, "batch")).ok
    assert assert_equivalent(model, made.model, to="blend", prior=16, over="batch", runtimes=["onnxruntime"]).ok
    assert not normswap.verify(model, made.model, to="blend", prior=17, over="batch").ok
    with pytest.raises(AssertionError, match="NOT shown equal to BatchNorm with its stored statistics"):
        assert_equivalent(model, made.model, to="blend", prior=17, over="batch")


def test_a_state_dict_takes_a_norm_too() -> None:
    weights = {f"bn.{name}": np.ones(2) for name in ("weight", "running_mean", "running_var", "num_batches_tracked")}
    kept = normswap.convert_state_dict(weights, Blend(16))
    assert list(kept) == list(normswap.convert_state_dict(weights, "blend", prior=16))
    assert list(kept) == ["bn.weight", "bn.running_mean", "bn.running_var"]


def test_what_is_wrong_is_wrong_for_type_checkers_too() -> None:
    """Under mypy --strict an ignore that nothing needs is an error, so that mypy shows that it sees each mistake."""
    model = built(ONE_LAYER)
    with pytest.raises(TypeError, match=r"^convert\(\) got an unexpected keyword argument 'sede'$"):
        normswap.convert(model, "instance", sede=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^verify\(\) missing a required argument: 'to'$"):
        normswap.verify(model, model)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^convert\(\) got an unexpected keyword argument 'may_differ'$"):
        normswap.convert(model, "instance", may_differ=["*"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="too many positional arguments"):
        normswap.plan(model, "instance", ["*"])  # type: ignore[call-arg, arg-type]
    with pytest.raises(normswap.SelectionError, match="prior: the target blend is given as an object"):
        normswap.plan(model, Blend(16), prior=16)
    with pytest.raises(normswap.SelectionError, match="over: expected 'sample' or 'batch', found 'channel'"):
        normswap.plan(model, "blend", prior=16, over="channel")  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [normswap.convert, assert_equivalent, normswap.diagnose, normswap.recalibrate])
def test_the_example_of_a_docstring_runs(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctest looks for functions of the module itself, of which these are not in its eyes."""
    monkeypatch.chdir(ROOT)
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(function) or "", {}, function.__name__, None, None)
    found = doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None)
    assert (found.attempted >= 2, found.failed) == (True, 0)


def option_names(command: str) -> set[str]:
    """The options of a command that are not of the command line alone."""
    return {str(parameter.name) for parameter in cli.command.commands[command].params}


def test_the_command_line_and_the_settings_file_have_every_option() -> None:
    for command, arguments in (("convert", Converting), ("verify", Verifying), ("inspect", Planning)):
        declared = {one.name for one in fields(arguments) if spelled(one)}
        assert declared | all_parameters().keys() <= option_names(command)
    shared = {one.name for one in fields(Comparison) if option_of(one).kind}
    assert shared - option_names("verify") == {"tolerance"}, "the settings file alone has it"
    assert {name.replace("_", "-") for name in shared | all_parameters().keys()} < keys_of_pairs().keys()
    assert shared < {one.name for one in fields(Pair)}
    models = {"before", "after", "to"}
    assert {one.name for one in fields(Comparison)} == {one.name for one in fields(Verifying)} - models


def test_help_shows_what_is_declared() -> None:
    for command, arguments in (
        ("convert", Converting),
        ("verify", Pair),
        ("inspect", Planning),
        ("recalibrate", Recalibrating),
        ("diagnose", Diagnosing),
    ):
        params = {parameter.name: parameter for parameter in cli.command.commands[command].params}
        for one in fields(arguments):
            if spelled(one):
                found = params[one.name]
                assert isinstance(found, click.Option) and found.help and found.help.startswith(option_of(one).help)
                assert "/".join((*found.opts, *found.secondary_opts)) == spelled(one)
                assert found.multiple or found.default == one.default
        for name, parameter in all_parameters().items() if command not in ("recalibrate", "diagnose") else ():
            found = params[name]
            assert isinstance(found, click.Option) and found.help == parameter.help


def test_every_kind_of_a_pair_is_read_from_a_settings_file() -> None:
    assert READINGS.keys() == {kind for one in fields(Pair) if (kind := option_of(one).kind)}
    assert READINGS.keys() < set(get_args(Kind))


def test_json_and_format_agree_or_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        report_format_of(None, False),
        report_format_of("junit", False),
        report_format_of(None, True),
        report_format_of("json", True),
    ) == (
        "text",
        "junit",
        "json",
        "json",
    )
    assert cli.main(["verify", "a.onnx", "b.onnx", "--to", "instance", "--json", "--format", "junit"]) == 2
    message = "--json is short for --format json and contradicts --format junit; leave one of them out"
    assert message in capsys.readouterr().err
    for command in ("convert", "verify"):
        names = [parameter.name for parameter in cli.command.commands[command].params]
        assert len(set(names)) == len(names), "click 8.1 mixes up options that share a parameter"
