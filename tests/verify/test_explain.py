"""Likely causes: what stands in a layer's place is named by its mistake, and nothing is said where none fits.

The mutants are named in test_mutants.py; here are the other entries of the table, put in a layer's place as torch has
them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.models.modules import MODULES
from torch import Tensor, nn

import normswap
from normswap import NORMS
from normswap.verify import probes
from normswap.verify.explain import Probed, likely_cause
from normswap.verify.mistakes import MISTAKES


class Of(nn.Module):
    """Computes a function of x, weight and bias where a BatchNorm was."""

    def __init__(self, norm: nn.BatchNorm2d, compute: Callable[[Tensor, nn.BatchNorm2d], Tensor]) -> None:
        super().__init__()
        self.norm, self.compute = norm, compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x, self.norm)


def scaled(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def over(*axes: int) -> Callable[[Tensor, nn.BatchNorm2d], Tensor]:
    def compute(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        d = x - x.mean(axes, keepdim=True)
        return scaled(d / (d.square().mean(axes, keepdim=True) + norm.eps).sqrt(), norm)

    return compute


def instance(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return over(2, 3)(x, norm)


def with_eps(eps: float) -> Callable[[Tensor, nn.BatchNorm2d], Tensor]:
    def compute(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        return nn.functional.group_norm(x, len(norm.weight), norm.weight, norm.bias, eps)

    return compute


def moved(name: str, channel: int, factor: float) -> Callable[[Tensor, nn.BatchNorm2d], Tensor]:
    def compute(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        norm = copy.deepcopy(norm)
        with torch.no_grad():
            getattr(norm, name)[channel] *= factor
        return instance(x, norm)

    return compute


def swapped_statistics(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    return nn.functional.batch_norm(x, var, mean, norm.weight, norm.bias, False, 0.0, norm.eps)


PUT: dict[str, tuple[str, Callable[[Tensor, nn.BatchNorm2d], Tensor], str]] = {  # target, what, the cause
    "eval mode": ("instance", lambda x, norm: norm.eval()(x), "the running statistics were used (eval mode)"),
    "the input": ("instance", lambda x, norm: x.clone(), "nothing was computed: the output is the input"),
    "InstanceNorm2d": (
        "instance",
        lambda x, norm: instance(x, nn.BatchNorm2d(4, eps=norm.eps)),
        "weight and bias were dropped",
    ),
    "GroupNorm of one group": (
        "instance", over(1, 2, 3), "the statistics were taken over the channels of each sample too",
    ),
    "channels normalized at each place": (
        "instance", over(1), "the statistics were taken over the channels at each place",
    ),
    "InstanceNorm1d": ("instance", over(3), "the statistics were taken over the last axis alone"),
    "float16": ("instance", lambda x, norm: instance(x, norm).half().float(), "the result was rounded to float16"),
    "bfloat16": (
        "instance", lambda x, norm: instance(x, norm).bfloat16().float(), "the result was rounded to bfloat16",
    ),
    "eps of another framework": ("instance", with_eps(1e-3), "eps was 0.001, not 1e-05"),
    "half of eps, batch-stat": (
        "batch-stat",
        lambda x, norm: nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps / 2),
        "eps was 5e-06, not 1e-05",
    ),
    "a batch": (
        "population", over(0, 2, 3), "the statistics of the batch were used, not the running ones (train mode)",
    ),
    "a sample": ("population", instance, "the statistics of each sample were used, not the running ones"),
    "running statistics swapped": ("population", swapped_statistics, "running mean and running variance were swapped"),
}  # fmt: skip


def cause(to: str, compute: Callable[[Tensor, nn.BatchNorm2d], Tensor]) -> str:
    """Put what ``compute`` does in the place of a layer; return what the probes say that it looks like."""
    case = MODULES["BatchNorm2d, train" if to == "population" else "BatchNorm2d"]
    before, after = case.build(), case.build()
    norm = after.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        assert norm.running_mean is not None
        norm.running_mean.abs_().add_(0.1)  # so that it could be a variance
    before.load_state_dict(after.state_dict())
    after.norm = Of(norm, compute)
    report = normswap.verify(before, after, to, inputs=case.inputs(), end_to_end=False)
    (check,) = report.of("probes")
    assert not check.ok
    assert check.cause in report.to_text()
    return check.cause


@pytest.mark.parametrize(("to", "compute", "said"), PUT.values(), ids=PUT)
def test_what_stands_in_a_layers_place_is_named(
    to: str, compute: Callable[[Tensor, nn.BatchNorm2d], Tensor], said: str
) -> None:
    assert cause(to, compute) == f"looks as if {said}"


def test_another_value_of_a_parameter_is_named_with_its_channel() -> None:
    expected = MODULES["BatchNorm2d"].build().get_submodule("norm")
    for name in ("weight", "bias"):
        given = getattr(expected, name)[2].item()
        found = f"{name} of channel 2: {given * 1.02:.6g}"
        said = cause("instance", moved(name, 2, 1.02))
        assert said.startswith(f"looks as if {name} had other values in 1 of 4 channels ({found[:-1]}")
        assert said.endswith(f", not {given:.6g})")


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, norm: torch.tanh(instance(x, norm)),
        lambda x, norm: instance(x, norm) + 1e-3 * x,
        lambda x, norm: nn.functional.group_norm(x, 4, None, None, 1e-3),  # two mistakes at once
        lambda x, norm: torch.zeros_like(x),
        lambda x, norm: torch.full_like(x, torch.nan),
        lambda x, norm: x.flatten(1),
    ],
    ids=["tanh", "a residual", "two mistakes", "zeros", "NaN", "another shape"],
)
def test_nothing_is_said_of_what_fits_no_mistake(compute: Callable[[Tensor, nn.BatchNorm2d], Tensor]) -> None:
    assert cause("instance", compute) == ""


def test_no_cause_is_looked_for_where_all_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError("nothing failed")

    monkeypatch.setattr(probes, "likely_cause", never)
    case = MODULES["BatchNorm2d"]
    assert normswap.convert(case.build(), "instance", inputs=case.inputs()).report.ok
    with pytest.raises(AssertionError, match="nothing failed"):
        normswap.verify(case.build(), case.build(), "instance", inputs=case.inputs())


def test_a_right_layer_fits_no_mistake() -> None:
    (layer,) = normswap.find(MODULES["BatchNorm2d"].build())
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3))
    for norm in NORMS.values():
        y = norm.reference(x, layer)
        assert likely_cause(norm, layer, [Probed(x, y, np.full_like(y, 1e-6), y.astype(np.float32))]) == ""
        assert likely_cause(norm, layer, []) == ""


def test_a_wrong_kernel_among_right_ones_is_named() -> None:
    """The ways in which a layer is run are not mixed: only one of them makes the mistake."""

    def compute(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        return instance(x, norm if x.is_contiguous() else moved_to_one(norm))

    def moved_to_one(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
        norm = copy.deepcopy(norm)
        nn.init.ones_(norm.weight)
        return norm

    assert cause("instance", compute) == "looks as if weight was dropped"


def test_every_mistake_says_that_it_was_one() -> None:
    named = {*MISTAKES, *(what for norm in NORMS.values() for what in norm.mistakes)}
    assert all((" was " in what or " were " in what) and not what.endswith(".") for what in named)
