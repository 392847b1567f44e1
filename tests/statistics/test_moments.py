"""Moments merge to those of all samples at once, and the law splits a mismatch exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from normswap.layer import Floats
from normswap.statistics.mismatch import mismatch
from normswap.statistics.moments import Moments

U = 2.0**-53  # unit roundoff of float64
EPS = 1e-5
NUMBERS = st.floats(-1e3, 1e3)
VARIANCES = st.floats(0, 1e4) | st.floats(1e-12, 1e-3)
SAMPLES = st.lists(st.tuples(NUMBERS, VARIANCES), min_size=1, max_size=30)


def moments(samples: list[tuple[float, float]], elements: int = 16, eps: float = EPS) -> Moments:
    m, v = np.array(samples).T.reshape(2, -1, 1)
    return Moments.of_samples(m, v, elements=elements, eps=eps)


def raw(rng: np.random.Generator, sizes: list[int], channels: int = 3) -> list[Floats]:
    """Samples of several sizes, (C, L) each, that differ in mean and spread."""
    return [
        rng.standard_normal((channels, size)) * rng.uniform(0.1, 3, (channels, 1)) + rng.uniform(-50, 50, (channels, 1))
        for size in sizes
    ]


def of_raw(samples: list[Floats]) -> list[Moments]:
    return [
        Moments.of_samples(x.mean(axis=1)[None], x.var(axis=1)[None], elements=x.shape[1], eps=EPS) for x in samples
    ]


def same(found: Floats, expected: Floats) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("sizes", [[20] * 7, [3, 50, 1, 17, 200], [1]], ids=str)
def test_merged_is_what_all_elements_have_at_once(sizes: list[int]) -> None:
    samples = raw(np.random.default_rng(0), sizes)
    every = np.concatenate(samples, axis=1)
    means = np.stack([x.mean(axis=1) for x in samples])
    variances = np.stack([x.var(axis=1) for x in samples])
    found = Moments.merged(of_raw(samples))
    assert (found.samples, found.elements) == (len(sizes), sum(sizes))
    same(found.pooled_mean, every.mean(axis=1))
    same(found.pooled_var, every.var(axis=1))
    if sum(sizes) > 1:
        same(found.unbiased_var, every.var(axis=1, ddof=1))
    same(found.mean, means.mean(axis=0))
    same(found.between_var, means.var(axis=0))
    same(found.within, variances.mean(axis=0))
    same(found.log_within, np.log(variances + EPS).mean(axis=0))
    if len(set(sizes)) == 1:
        same(found.sample_var, found.pooled_var)


@given(SAMPLES, st.data())
def test_the_order_and_grouping_of_a_merge_do_not_matter(
    samples: list[tuple[float, float]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(samples)))
    parts = [moments(part) for part in (samples[:cut], samples[cut:]) if part]
    whole, there, back = moments(samples), Moments.merged(parts), Moments.merged(parts[::-1])
    largest = max(abs(m) for m, _ in samples)
    bound = 8 * (len(samples) + 8) * U
    for merged in (there, back):
        assert merged.samples == whole.samples
        assert abs(merged.pooled_mean - whole.pooled_mean) <= bound * largest
        # The deviations are off by as much as the means are, so that an M2 of 0 need not stay 0.
        allowed = bound * whole.pooled_var + (bound * largest) ** 2 + bound * largest * np.sqrt(whole.pooled_var)
        assert abs(merged.pooled_var - whole.pooled_var) <= allowed


def test_a_large_mean_cancels_nothing() -> None:
    samples = raw(np.random.default_rng(1), [40] * 9)
    shifted = Moments.merged(of_raw([x + 2.0**20 for x in samples]))  # which float64 still adds to within 1e-10
    np.testing.assert_allclose(shifted.pooled_var, Moments.merged(of_raw(samples)).pooled_var, rtol=1e-9)


def test_nothing_merges_with_anything() -> None:
    some, none = moments([(1.0, 2.0)]), Moments.empty(1, EPS)
    assert some.merge(none) is some
    assert none.merge(some) is some
    assert np.isnan(none.pooled_mean).all()
    assert np.isnan(none.pooled_var).all()
    assert np.isnan(none.unbiased_var).all()
    assert np.isnan(none.sample_var).all()
    assert Moments.of_samples(np.zeros((0, 3)), np.zeros((0, 3)), elements=4, eps=EPS).samples == 0


def test_nan_and_infinity_stay_in_their_channel() -> None:
    bad = Moments.of_samples([[np.nan, 1.0, np.inf]], [[1.0, 1.0, 1.0]], elements=4, eps=EPS)
    good = Moments.of_samples([[1.0, 2.0, 3.0]] * 2, [[1.0, 1.0, 1.0]] * 2, elements=4, eps=EPS)
    for merged in (bad.merge(good), good.merge(bad)):
        assert np.isfinite(merged.pooled_var).tolist() == [False, True, False]
        split = mismatch(merged, np.zeros(3), np.ones(3))
        assert np.isfinite(split.total).tolist() == [False, True, False]


def test_one_vector_holds_all() -> None:
    found = Moments.merged(of_raw(raw(np.random.default_rng(2), [5, 9])))
    again = Moments.from_array(found.to_array())
    assert np.array_equal(again.to_array(), found.to_array())
    assert (again.samples, again.elements, again.eps) == (2, 14, EPS)


@pytest.mark.parametrize(
    "array",
    [np.zeros(2), np.zeros(10), np.zeros((1, 9)), np.zeros(9, np.float32), np.array([0.0, 1.5, 2] + [0] * 6)],
    ids=["short", "no multiple", "two axes", "float32", "half a sample"],
)  # fmt: skip
def test_what_is_no_moments_is_refused(array: Floats) -> None:
    with pytest.raises(ValueError, match="expected"):
        Moments.from_array(array)


def kl(m: Floats, v: Floats, a: float | Floats, b: float | Floats) -> Floats:
    """KL(N(m, v) || N(a, b)), written out."""
    return (np.log(b / v) + (v + (m - a) ** 2) / b - 1) / 2


@example([(0.0, 0.0)], 0.0, 1.0)  # a ratio of variances near 0
@given(SAMPLES, NUMBERS, VARIANCES)
def test_the_split_is_exact_and_neither_term_is_negative(
    samples: list[tuple[float, float]], running_mean: float, running_var: float
) -> None:
    m, v = np.array(samples).T
    v, b = v + EPS, running_var + EPS
    split = mismatch(moments(samples), np.array([running_mean]), np.array([running_var]))
    best = v.mean() + m.var()
    # Each sum over N samples is off by N u of its terms' magnitudes; a mean that is off by N u max|m| moves
    # (mean - a)² by no more than N u (max|m| + |a|)². The logarithms and divisions add a few u.
    logs = np.abs(np.log(v)).max() + abs(np.log(best)) + abs(np.log(b))
    quotients = (best + (np.abs(m).max() + abs(running_mean)) ** 2) * (1 / b + 1 / best)
    bound = 8 * (len(m) + 8) * U * (1 + logs + quotients)
    assert abs(split.total[0] - kl(m, v, running_mean, b).mean()) <= bound
    assert split.spread[0] >= -bound
    assert split.staleness[0] >= -bound


def test_the_three_terms_by_brute_force() -> None:
    """From raw numbers, with nothing of ours: the Gaussians' parameters, and KL by its integral."""
    rng = np.random.default_rng(3)
    samples = raw(rng, [25] * 6, channels=1)
    running_mean, running_var = 7.0, 900.0
    gaussians = [(float(x.mean()), float(x.var()) + EPS) for x in samples]
    every = np.concatenate(samples, axis=1)
    pooled = (float(every.mean()), float(every.var()) + EPS)  # sizes are equal
    stored = (running_mean, running_var + EPS)

    def integral(p: tuple[float, float], q: tuple[float, float]) -> float:
        x = np.linspace(p[0] - 14 * np.sqrt(p[1]), p[0] + 14 * np.sqrt(p[1]), 40_001)
        log_p, log_q = (-((x - mean) ** 2) / (2 * var) - np.log(2 * np.pi * var) / 2 for mean, var in (p, q))
        return float(np.sum(np.exp(log_p) * (log_p - log_q)) * (x[1] - x[0]))

    found = mismatch(Moments.merged(of_raw(samples)), np.array([running_mean]), np.array([running_var]))
    assert found.spread[0] == pytest.approx(np.mean([integral(p, pooled) for p in gaussians]), rel=1e-9)
    assert found.staleness[0] == pytest.approx(integral(pooled, stored), rel=1e-9)
    assert found.total[0] == pytest.approx(np.mean([integral(p, stored) for p in gaussians]), rel=1e-9)


def test_what_is_stored_as_pooled_is_not_stale() -> None:
    found = moments([(1.0, 2.0), (4.0, 0.5), (-3.0, 1.0)])
    split = mismatch(found, found.pooled_mean, found.pooled_var)
    assert abs(split.staleness[0]) < 1e-15
    assert split.spread[0] > 0.5


def test_a_variance_below_zero_says_nothing() -> None:
    assert np.isnan(mismatch(moments([(0.0, 1.0)]), np.zeros(1), np.array([-1.0])).total).all()
