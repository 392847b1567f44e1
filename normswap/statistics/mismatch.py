r"""Mismatch: how far a layer's stored statistics are from those of each sample, in nats, and what could remove it.

A BatchNorm in eval mode treats a channel of every sample i, of mean m_i and variance v_i, as if it had the stored mean
and variance. With eps added to every variance, as the layer itself adds it before it divides, let

- p_i = N(m_i, v_i + eps) be the sample,
- r = N(running_mean, running_var + eps) what is stored,
- p\* = N(mean m_i, mean v_i + var m_i + eps) the best that can be stored, where var m_i is biased.

Then ``mean KL(p_i || r) = mean KL(p_i || p*) + KL(p* || r)``: mismatch = spread + staleness, exactly. Proof: for
Gaussians ``2 KL(N(m, v) || N(a, b)) = log b - log v + (v + (m - a)²) / b - 1``. Averaged over i, with L = mean
log(v_i + eps), V = mean v_i + var m_i + eps, m = mean m_i:

- against any N(a, b): ``log b - L + (mean v_i + eps + mean (m_i - a)²) / b - 1``, and mean (m_i - a)² = var m_i +
  (m - a)², so that it is ``log b - L + (V + (m - a)²) / b - 1``;
- against p\*, a = m and b = V: ``log V - L``;
- the difference: ``log b - log V + (V + (m - a)²) / b - 1``, which is 2 KL(p\* || N(a, b)). eps stands in v_i + eps,
  V and b alike and is nowhere cancelled, so that the identity holds for every eps. Q.E.D.

**Staleness** is gone once the layer is recalibrated. **Spread** no stored statistic can remove: as KL(p\* || r) is 0
only at r = p\*, it is what is left of the best one. Samples count the same, whatever their size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from normswap.layer import Array, Floats
from normswap.statistics.moments import Moments

__all__ = ["Mismatch", "mismatch"]


@dataclass(frozen=True, eq=False)
class Mismatch:
    """The mismatch of one layer, shape (C,) each, in nats, float64.

    Attributes:
        spread: Mean over samples of KL(p_i || p*).
        staleness: KL(p* || r).
    """

    spread: Floats
    staleness: Floats

    @property
    def total(self) -> Floats:
        """Mean over samples of KL(p_i || r), their sum."""
        return self.spread + self.staleness


def mismatch(moments: Moments, running_mean: Array, running_var: Array) -> Mismatch:
    """Split the mismatch between stored statistics and those of each sample.

    Args:
        moments: Of the layer's input, of one sample at least.
        running_mean: Stored mean, shape (C,).
        running_var: Stored variance, shape (C,).

    Returns:
        NaN in channels where the stored variance plus eps is not above 0, or something is not finite; infinity where
        a sample has no variance and eps is 0. Terms that are 0 may come out below it by rounding.
    """
    a = np.asarray(running_mean).astype(np.float64)
    b = np.asarray(running_var).astype(np.float64) + moments.eps
    with np.errstate(all="ignore"):
        best = moments.sample_var + moments.eps
        b = np.where(b > 0, b, np.nan)
        excess = (best - b) / b  # V / b - 1, without the rounding of V / b where that is about 1
        # log1p keeps the digits of a ratio near 1; near -1 it would lose them, since 1 + excess cancels there.
        log_ratio = np.where(excess < -0.5, np.log(best / b), np.log1p(excess))
        staleness = (excess - log_ratio + np.square(moments.mean - a) / b) / 2
        spread = (np.log(best) - moments.log_within) / 2
    return Mismatch(spread, staleness)
