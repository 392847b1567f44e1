"""Each norm's float64 arithmetic against torch's train and eval mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models.targets import TARGETS

from normswap import NORMS, NormLayer
from normswap.layer import Floats
from normswap.norms import Group

SHAPES = [(3, 4, 5), (2, 4, 3, 5), (5, 4, 2, 3, 2), (1, 4, 7, 1)]


def layer_of(eps: float = 1e-3) -> NormLayer:
    rng = np.random.default_rng(1)
    weight, bias, mean, var = (rng.uniform(0.5, 2, 4) for _ in range(4))
    return NormLayer("y", "train", 4, eps, weight, bias, mean, var, "float64")


def torch_batch_norm(x: Floats, layer: NormLayer, training: bool) -> Floats:
    mean, var, weight, bias = (
        torch.tensor(value) for value in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    y = torch.nn.functional.batch_norm(torch.tensor(x), mean, var, weight, bias, training, 0.1, layer.eps)
    return np.asarray(y.numpy())


def sample_by_sample(x: Floats, layer: NormLayer) -> Floats:
    return np.concatenate([torch_batch_norm(sample[None], layer, True) for sample in x])


def mixed(x: Floats, layer: NormLayer, prior: int) -> Floats:
    """Eval mode with statistics blended of those that are stored and those of x, which counts len(x) samples."""
    assert layer.running_mean is not None and layer.running_var is not None
    weights = np.array([prior, len(x)]) / (prior + len(x))
    axes = (0, *range(2, x.ndim))
    mean = weights @ np.stack([layer.running_mean, x.mean(axes)])
    var = weights @ np.stack([layer.running_var, x.var(axes)])
    return torch_batch_norm(x, replace(layer, running_mean=mean, running_var=var), False)


def grouped(x: Floats, layer: NormLayer, groups: int) -> Floats:
    weight, bias = torch.tensor(layer.weight), torch.tensor(layer.bias)
    return np.asarray(torch.nn.functional.group_norm(torch.tensor(x), groups, weight, bias, layer.eps).numpy())


MEANINGS: dict[str, Callable[[Floats, NormLayer], Floats]] = {
    "instance": sample_by_sample,
    "batch-stat": lambda x, layer: torch_batch_norm(x, layer, True),
    "population": lambda x, layer: torch_batch_norm(x, layer, False),
    "blend": lambda x, layer: mixed(x, layer, 16),
    "blend of samples": lambda x, layer: np.concatenate([mixed(sample[None], layer, 2) for sample in x]),
    "group": lambda x, layer: grouped(x, layer, 1),
}


def test_every_norm_has_a_meaning_here() -> None:
    assert MEANINGS.keys() == TARGETS.keys()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", TARGETS)
def test_reference_is_what_torch_computes(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) * 3 + 2
    layer = layer_of()
    # float64 on both sides: a few units in the last place of numbers up to about ten
    np.testing.assert_allclose(TARGETS[name].reference(x, layer), MEANINGS[name](x, layer), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 4)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_are_those_of_torch(groups: int, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) * 3 + 2
    layer = layer_of()
    np.testing.assert_allclose(Group(groups).reference(x, layer), grouped(x, layer, groups), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NORMS)
def test_reference_refuses_the_wrong_number_of_channels(name: str) -> None:
    with pytest.raises(ValueError, match=r"y: expected x of shape \(N, 4, \*spatial\), got \(2, 3, 5\)"):
        NORMS[name].reference(np.zeros((2, 3, 5)), layer_of())
