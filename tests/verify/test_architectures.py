"""Architectures that nobody here wrote, and GANs: every BatchNorm is accounted for, and none gives a false alarm."""

from __future__ import annotations

from typing import Any

import pytest
from support.models.architectures import ARCHITECTURES
from support.models.gan_networks import GAN_NETWORKS
from support.models.targets import asked
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import normswap
from normswap import Conversion

HELD = ["instance", "batch-stat"]
QUICK = {"SwiftFormer", "QuartzNet", "3D U-Net"}  # one for each number of spatial dimensions


def _slow_but_for_some(name: str) -> Any:
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


def converted(model: nn.Module, to: str, inputs: Any) -> Conversion:
    """Convert a model, and hold its plan to torch's own count of BatchNorms."""
    count = sum(isinstance(module, _BatchNorm) for _, module in model.named_modules(remove_duplicate=False))
    conversion = normswap.convert(model, to, **asked(to), inputs=inputs, allow_refusals=True)
    assert conversion.report.ok, conversion.report.to_text()
    plan = conversion.plan
    found = [*plan.layers, *(kept.layer for kept in plan.kept), *(refusal.layer for refusal in plan.refusals)]
    assert len(found) == len({layer.name for layer in found}) == count
    return conversion


def test_one_of_each_number_of_dimensions_is_quick() -> None:
    assert {ARCHITECTURES[name].dims for name in QUICK} == {1, 2, 3}


@pytest.mark.parametrize("to", HELD)
@pytest.mark.parametrize("name", [_slow_but_for_some(name) for name in ARCHITECTURES])
def test_architectures(name: str, to: str) -> None:
    converted(ARCHITECTURES[name].build(), to, ARCHITECTURES[name].inputs())


@pytest.mark.parametrize("to", HELD)
@pytest.mark.parametrize("name", GAN_NETWORKS)
def test_gan_networks(name: str, to: str) -> None:
    network = GAN_NETWORKS[name]
    conversion = converted(network.build(), to, network.inputs())
    refused = [refusal.reason for refusal in conversion.plan.refusals]
    assert len(conversion.plan.layers) + len(refused) == network.count
    assert all("one spatial element" in reason for reason in refused)
    assert len(refused) == (to == "instance" and "of one element" in name)
