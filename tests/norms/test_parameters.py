"""Targets and their parameters, by name and as objects; a wrong one is refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from normswap import NORMS, SelectionError
from normswap.norms import Blend, Norm, all_parameters, make_norm
from normswap.norms.parameters import Parameter, whole_number_from


def test_a_name_gives_the_target_of_the_table() -> None:
    for name, norm in NORMS.items():
        made = make_norm(name, **norm.parameters)
        assert type(made) is type(norm)
        assert made.parameters == norm.parameters
    assert make_norm("instance", prior=None) is NORMS["instance"], "None stands for not given"


def test_a_norm_is_returned_as_it_is() -> None:
    blend = Blend(3)
    assert make_norm(blend) is blend
    assert blend.parameters == {"prior": 3.0, "over": "sample"}


def test_values_are_read_from_the_strings_of_a_command_line() -> None:
    assert make_norm("blend", prior="2.5").parameters == {"prior": 2.5, "over": "sample"}
    assert make_norm("blend", prior=2, over="batch").parameters == {"prior": 2.0, "over": "batch"}


REFUSED: dict[str, tuple[str | Norm, dict[str, Any], str]] = {
    "unknown": ("instanse", {}, "unknown target 'instanse'; the nearest is 'instance'; known are instance, batch-stat"),
    "missing": ("blend", {"over": "batch"}, "prior: the target blend needs one: .*(--prior 16)"),
    "of another target": ("instance", {"prior": 16}, "prior: belongs to the target blend and does nothing with inst"),
    "of no target": ("instance", {"piror": 16}, "piror: belongs to no target; the nearest is 'prior' and does nothing"),
    "of an object": (Blend(16), {"prior": 3}, "prior: the target blend is given as an object; give it prior when it"),
    "not a number": ("blend", {"prior": "many"}, "prior: expected a number, 0 or more, found 'many'"),
    "true": ("blend", {"prior": True}, "prior: expected a number, 0 or more, found True"),
    "below 0": ("blend", {"prior": -1}, "prior: expected a number, 0 or more, found -1"),
    "NaN": ("blend", {"prior": float("nan")}, "prior: expected a number, 0 or more, found nan"),
    "too large": ("blend", {"prior": 1e13}, "for the stored statistics alone use the target population"),
    "not a choice": ("blend", {"prior": 1, "over": "sampel"}, "over: expected 'sample' or 'batch', found 'sampel'"),
}


@pytest.mark.parametrize(("to", "parameters", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_one_sentence(to: str | Norm, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message.replace("(", r"\(").replace(")", r"\)")):
        make_norm(to, **parameters)


def test_each_parameter_says_how_it_is_given() -> None:
    known = all_parameters()
    assert {"prior", "over"} <= set(known)
    for name, parameter in known.items():
        assert parameter.name == name
        assert parameter.help.endswith(".") and parameter.metavar and parameter.expected
        assert bool(parameter.missing) == parameter.required
        assert f"--{name}" in parameter.missing or not parameter.required
        if not parameter.required:
            assert parameter.value(parameter.default) == parameter.default
        assert all(parameter.value(choice) == choice for choice in parameter.choices)
    for to, norm in NORMS.items():
        assert all(known[parameter.name] == parameter for parameter in norm.takes), f"{to}: two of one name"


def test_whole_numbers() -> None:
    parameter = Parameter("n", int, "a whole number, 1 or more", whole_number_from(1), "A number.", "N", default=1)
    assert (parameter.value(3), parameter.value("8")) == (3, 8)
    for wrong in (0, True, 2.0, "2.5", None):
        with pytest.raises(SelectionError, match="n: expected a whole number, 1 or more, found"):
            parameter.value(wrong)
