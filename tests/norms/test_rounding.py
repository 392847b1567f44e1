"""The rounding-error bound holds for correct arithmetic of any order, and is not so wide that it holds nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models.targets import TARGETS

from normswap import NORMS, NormLayer
from normswap.layer import Array, Floats
from normswap.norms.rounding import UNIT_ROUNDOFF, rounding_bound


def layer_of(rng: np.random.Generator, dtype: str, eps: float) -> NormLayer:
    weight, bias, mean, var = (rng.uniform(0.1, 3, 3).astype(dtype) for _ in range(4))
    return NormLayer("y", "train", 3, eps, weight, bias, mean, var, dtype)


def in_sequence(x: Array) -> Array:
    """Sum along the last axis one by one, the worst order."""
    total = np.zeros(x.shape[:-1], x.dtype)
    for index in range(x.shape[-1]):
        total = total + x[..., index]
    return total


def computed(name: str, x: Array, layer: NormLayer, fused: bool) -> Array:
    """Normalize in the layer's own precision, every operation rounded, sums in sequence."""
    dtype = x.dtype
    assert layer.weight is not None and layer.bias is not None
    assert layer.running_mean is not None and layer.running_var is not None
    norm = TARGETS[name]
    rows = x if norm.formula.alone else np.moveaxis(x, 1, 0).reshape(1, x.shape[1], -1)
    if name == "population":
        mean, var = layer.running_mean[None], layer.running_var[None]
        rows = x
    else:
        own = rows.reshape(len(rows), 1, -1) if norm.formula.joins_channels else rows
        count = dtype.type(own.shape[-1])
        mean = in_sequence(own) / count
        var = in_sequence(np.square(own - mean[..., None])) / count
        if norm.formula.reads_stored:
            samples, prior = dtype.type(1 if norm.formula.alone else len(x)), dtype.type(norm.parameters["prior"])
            of_stored, of_own = prior / (prior + samples), samples / (prior + samples)
            mean = of_stored * layer.running_mean + of_own * mean
            var = of_stored * layer.running_var + of_own * var
    k = layer.weight / np.sqrt(var + dtype.type(layer.eps))
    if fused:
        y = rows * k[..., None] + (layer.bias - mean * k)[..., None]
    else:
        y = (rows - mean[..., None]) * k[..., None] + layer.bias[:, None]
    return y if norm.formula.alone or name == "population" else np.moveaxis(y.reshape(x.shape[1], x.shape[0], -1), 0, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(sorted(TARGETS)),
    dtype=st.sampled_from(["float32", "float64"]),
    shape=st.tuples(st.integers(1, 4), st.just(3), st.integers(1, 60)),
    mean=st.sampled_from([0.0, 1.0, 1e2, 1e4, 1e6]),
    spread=st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e3]),
    eps=st.sampled_from([1e-12, 1e-5, 1e-3, 1.0]),
    fused=st.booleans(),
)
def test_correct_arithmetic_stays_within(
    seed: int, name: str, dtype: str, shape: tuple[int, int, int], mean: float, spread: float, eps: float, fused: bool
) -> None:
    rng = np.random.default_rng(seed)
    layer = layer_of(rng, dtype, eps)
    x = (rng.standard_normal(shape) * spread + mean).astype(dtype)
    exact = TARGETS[name].reference(x, layer)
    if dtype == "float64":  # the reference itself is float64: hold it to twice the bound
        bound = 2 * rounding_bound(TARGETS[name], x.astype(np.float64), layer, exact)
    else:
        bound = rounding_bound(TARGETS[name], x.astype(np.float64), layer, exact)
    assert np.all(np.abs(computed(name, x, layer, fused).astype(np.float64) - exact) <= bound)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_it_is_a_few_units_for_well_conditioned_data(dtype: str) -> None:
    import ml_dtypes

    assert ml_dtypes  # gives NumPy the name bfloat16
    rng = np.random.default_rng(0)
    layer = layer_of(rng, dtype, 1e-5)
    x = rng.standard_normal((2, 3, 35)).astype(dtype).astype(np.float64)
    exact: Floats = NORMS["instance"].reference(x, layer)
    bound = rounding_bound(NORMS["instance"], x, layer, exact)
    compute = UNIT_ROUNDOFF["float64" if dtype == "float64" else "float32"]
    assert np.max(bound) < 500 * compute + 12 * UNIT_ROUNDOFF[dtype]


def test_a_kernel_that_cancels_is_outside() -> None:
    rng = np.random.default_rng(0)
    layer = layer_of(rng, "float32", 1e-5)
    x = (rng.standard_normal((2, 3, 35)) + 1e4).astype(np.float32)
    mean = x.mean(-1, keepdims=True)
    var = np.square(x).mean(-1, keepdims=True) - np.square(mean)
    assert layer.weight is not None and layer.bias is not None
    y = (x - mean) / np.sqrt(np.abs(var) + np.float32(1e-5)) * layer.weight[:, None] + layer.bias[:, None]
    exact = NORMS["instance"].reference(x, layer)
    assert np.any(np.abs(y - exact) > rounding_bound(NORMS["instance"], x.astype(np.float64), layer, exact))


@pytest.mark.parametrize("name", list(NORMS))
@pytest.mark.parametrize("dtype", UNIT_ROUNDOFF)
def test_without_an_eps_a_constant_channel_has_no_bound_and_gives_no_warning(name: str, dtype: str) -> None:
    layer = replace(layer_of(np.random.default_rng(0), "float64", 0.0), dtype=dtype, running_var=np.zeros(3))
    x = np.ones((2, 3, 4, 4))
    bound = rounding_bound(NORMS[name], x, layer, NORMS[name].reference(x, layer))
    assert not np.isfinite(bound).any()
