"""Moments: what is known of one layer's input, per channel, over all samples seen; it merges, and does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import reduce

import numpy as np

from normswap.layer import Array, Floats

__all__ = ["Moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of a layer's input, shape (C,) each, in float64.

    A sample i has at each channel a mean m_i and a biased variance v_i over its spatial elements. Kept are the mean of
    the m_i and the sum of their squared deviations (M2), the means of v_i and of log(v_i + eps), and the mean and M2
    of all elements together, which differ from the former where samples differ in size. Nothing of the form
    E[x²] - E[x]² is computed. NaN and infinity stay in the channel that they came in.

    Attributes:
        eps: Of the layer, in units of x squared; merged moments have the same.
        samples: Number of samples; a layer that runs twice in one call of the model has seen twice as many.
        mean: Mean of m_i.
        between: Sum of (m_i - mean)².
        within: Mean of v_i.
        log_within: Mean of log(v_i + eps).
        elements: Number of elements of a channel, over all samples.
        element_mean: Mean of all elements.
        element_m2: Sum of the squared deviations of all elements from ``element_mean``.

    References:
        Chan, Golub & LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.

    Examples:
        >>> one = Moments.of_samples([[1.0], [3.0]], [[0.5], [1.5]], elements=10, eps=0.0)
        >>> two = Moments.of_samples([[5.0]], [[1.0]], elements=40, eps=0.0)
        >>> both = one.merge(two)
        >>> both.samples, float(both.mean[0]), float(both.sample_var[0])  # mean v_i + variance of the m_i
        (3, 3.0, 3.6666666666666665)
        >>> both.elements, round(float(both.pooled_mean[0]), 9)
        (60, 4.0)
    """

    eps: float
    samples: int
    mean: Floats
    between: Floats
    within: Floats
    log_within: Floats
    elements: int
    element_mean: Floats
    element_m2: Floats

    @classmethod
    def empty(cls, channels: int, eps: float) -> Moments:
        """Return the moments of no samples, which change nothing in a merge."""
        zero = np.zeros(channels)
        return cls(eps, 0, zero, zero, zero, zero, 0, zero, zero)

    @classmethod
    def of_samples(
        cls, mean: Array | list[list[float]], var: Array | list[list[float]], *, elements: int, eps: float
    ) -> Moments:
        """Take the moments of samples of one size.

        Args:
            mean: m_i, shape (N, C).
            var: v_i, divided by the count, shape (N, C).
            elements: Of a channel of one sample: the product of the spatial dimensions, 1 where there are none.
            eps: Of the layer.
        """
        m, v = np.asarray(mean, np.float64), np.asarray(var, np.float64)
        count = len(m)
        if not count:
            return cls.empty(m.shape[1], eps)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            centre, within = m.mean(axis=0), v.mean(axis=0)
            between = np.square(m - centre).sum(axis=0)
            logs = np.log(v + eps).mean(axis=0)
            m2 = elements * (between + count * within)
        return cls(eps, count, centre, between, within, logs, count * elements, centre, m2)

    @classmethod
    def merged(cls, parts: Iterable[Moments]) -> Moments:
        """Merge moments in their order; there has to be one at least."""
        return reduce(cls.merge, parts)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the samples of both."""
        assert self.eps == other.eps and self.mean.shape == other.mean.shape, "moments of one layer"
        if not self.samples or not other.samples:
            return self if self.samples else other
        samples, elements = self.samples + other.samples, self.elements + other.elements
        share = other.samples / samples
        with np.errstate(invalid="ignore", over="ignore"):
            mean, between = _joined((self.samples, self.mean, self.between), (other.samples, other.mean, other.between))
            element_mean, element_m2 = _joined(
                (self.elements, self.element_mean, self.element_m2),
                (other.elements, other.element_mean, other.element_m2),
            )
            within = self.within + (other.within - self.within) * share
            log_within = self.log_within + (other.log_within - self.log_within) * share
        return Moments(self.eps, samples, mean, between, within, log_within, elements, element_mean, element_m2)

    @property
    def pooled_mean(self) -> Floats:
        """Mean of all elements, as train-mode BatchNorm has it of one batch that holds every sample; NaN of none."""
        return self.element_mean if self.elements else np.full_like(self.mean, np.nan)

    @property
    def pooled_var(self) -> Floats:
        """Biased variance of all elements, divided by their number; NaN of none."""
        return self.element_m2 / self.elements if self.elements else np.full_like(self.mean, np.nan)

    @property
    def unbiased_var(self) -> Floats:
        """Variance of all elements, divided by their number less one; NaN of fewer than two."""
        return self.element_m2 / (self.elements - 1) if self.elements > 1 else np.full_like(self.mean, np.nan)

    @property
    def between_var(self) -> Floats:
        """Biased variance of the m_i; NaN of none."""
        return self.between / self.samples if self.samples else np.full_like(self.mean, np.nan)

    @property
    def sample_var(self) -> Floats:
        """Mean of v_i plus variance of m_i, all samples counting the same; ``pooled_var`` where sizes are equal."""
        return self.within + self.between_var

    @property
    def single(self) -> bool:
        """Whether a sample has one element at each channel, so that within a sample there is no variance."""
        return self.elements == self.samples > 0

    def to_array(self) -> Floats:
        """Return all of it as one vector of 3 + 6 C numbers, for files and for exchange between processes.

        The counts are exact to 2**53.
        """
        head = np.asarray([self.eps, self.samples, self.elements], np.float64)
        return np.concatenate([head, *(getattr(self, name) for name in _VECTORS)])

    @classmethod
    def from_array(cls, array: Floats) -> Moments:
        """Take back what ``to_array`` gave.

        Raises:
            ValueError: If it is not such a vector.
        """
        if array.ndim != 1 or array.dtype != np.float64 or array.size < 3 or (array.size - 3) % len(_VECTORS):
            raise ValueError(f"expected 3 + {len(_VECTORS)} C numbers in float64, found {array.dtype}{array.shape}")
        eps, samples, elements = map(float, array[:3])
        counts = samples.is_integer() and elements.is_integer() and 0 <= samples <= elements
        if not counts:
            raise ValueError(f"expected numbers of samples and elements, found {samples} and {elements}")
        vectors: Mapping[str, Floats] = dict(zip(_VECTORS, np.split(array[3:].copy(), len(_VECTORS)), strict=True))
        return cls(eps=eps, samples=int(samples), elements=int(elements), **vectors)


_VECTORS = tuple(field.name for field in fields(Moments) if field.name not in ("eps", "samples", "elements"))


def _joined(one: tuple[int, Floats, Floats], other: tuple[int, Floats, Floats]) -> tuple[Floats, Floats]:
    """Join two counts, means and M2."""
    (n, mean, m2), (k, other_mean, other_m2) = one, other
    delta = other_mean - mean
    return mean + delta * (k / (n + k)), m2 + other_m2 + np.square(delta) * (n * (k / (n + k)))
