"""The mean and variance to store, as a framework defines them, from what was collected."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normswap.errors import CannotRunError
from normswap.layer import Array, Floats, NormLayer
from normswap.recalibration.selection import Selection
from normswap.statistics.moments import Moments
from normswap.words import counted

__all__ = ["statistics_of"]


def statistics_of(
    chosen: Selection, moments: Mapping[str, Moments], momentum: float | None
) -> dict[str, tuple[Floats, Floats]]:
    """Return the mean and variance to be stored, as the framework defines them, by the layer's name.

    Args:
        chosen: The layers, with what they store.
        moments: What was collected, by name; layers that have none are left out.
        momentum: Share of the new statistics; None for the new ones alone.

    Returns:
        Mean and variance, shape (C,) each, in float64.

    Raises:
        CannotRunError: If one is not finite, or too large for the element type that it is stored in.
    """
    made = {}
    for layer in chosen.layers:
        if layer.name not in moments:
            continue
        found = moments[layer.name]
        assert layer.running_mean is not None and layer.running_var is not None, "cannot_store names others"
        values = []
        new = (found.pooled_mean, found.pooled_var if chosen.backend.VARIANCE == "biased" else found.unbiased_var)
        for word, value, stored in zip(("mean", "variance"), new, (layer.running_mean, layer.running_var), strict=True):
            if momentum is not None:
                value = (1 - momentum) * stored.astype(np.float64) + momentum * value
            _raise_for_not_finite(layer, word, value, stored, found)
            values.append(value)
        made[layer.name] = (values[0], values[1])
    return made


def _raise_for_not_finite(layer: NormLayer, word: str, value: Floats, stored: Array, found: Moments) -> None:
    with np.errstate(over="ignore"):
        wrong = int(np.sum(~np.isfinite(value.astype(stored.dtype).astype(np.float64))))
    if not wrong:
        return
    of = f"{wrong} of {counted(value.size, 'channel')}"
    if np.isfinite(value).all():
        why = f"is too large for {stored.dtype}, in which it is stored; keep the statistics of this layer in float32"
    elif found.elements == 1 and word == "variance":
        why = "is that of a single element; give more samples"
    elif not np.isfinite(found.pooled_mean).all() or not np.isfinite(found.pooled_var).all():
        why = "is not finite, because what the layer is given is not; look at the data and at the layers before it"
    else:
        why = "is not finite, because the old one that it is blended with is not; leave out the momentum"
    raise CannotRunError(f"{layer.name}: its new {word} {why} ({of})")
