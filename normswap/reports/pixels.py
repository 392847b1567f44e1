"""Arrays as pixels: values on the scale of the original, differences on the scale of what is allowed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from normswap.layer import Array, Floats

__all__ = ["Pixels", "Scale", "difference_of", "difference_pixels", "image_pixels", "scale_of"]

Pixels = npt.NDArray[np.uint8]
Scale = tuple[float, float]

_MOST = 320  # pixels each way; larger images are reduced, so that a page stays small enough to send
_USUAL: tuple[Scale, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_COVERED = 0.25  # least share of a usual scale that values fill; with less they would look flat
_NOT_FINITE = (255, 0, 255)  # magenta, which no scale here has
# Lightness grows all the way, so that the scale reads without its colours: black to grey, red, yellow.
_ALLOWED = ((0, 0, 0), (85, 85, 85))
_BEYOND = ((225, 60, 50), (255, 225, 60))


def scale_of(values: Array) -> Scale:
    """Return the values that black and white stand for: a usual range of images, or the smallest and the largest."""
    numbers = values.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return _USUAL[0]
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:  # mid-grey
        half = max(abs(low), 1.0) / 2
        return low - half, high + half
    for usual in _USUAL:
        if usual[0] <= low and high <= usual[1] and high - low >= _COVERED * (usual[1] - usual[0]):
            return usual
    return low, high


def image_pixels(image: Array, scale: Scale) -> Pixels:
    """Return an image (1 or 3, H, W) as pixels (H, W, 3), from black to white; what is beyond either is cut off there.

    A pixel that is not finite in any channel is magenta.
    """
    values = image.astype(np.float64)
    finite = np.asarray(np.isfinite(values).all(axis=0))
    size = max(map(abs, scale)) or 1.0  # divided by it first, since high - low may overflow
    low, high = scale[0] / size, scale[1] / size
    with np.errstate(over="ignore"):
        share = np.clip((np.where(finite, values, 0.0) / size - low) / (high - low), 0.0, 1.0)
    share = _blocks(share).mean(axis=(2, 4))
    pixels = np.round(255 * share).astype(np.uint8).transpose(1, 2, 0)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    pixels[_any(~finite)] = _NOT_FINITE
    return pixels


def difference_of(expected: Array, found: Array) -> Floats:
    """Return how far two images (1 or 3, H, W) are apart, (H, W): the largest of the channels.

    NaN where one is NaN or infinite and the other is not the same.
    """
    one, other = found.astype(np.float64), expected.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(same, 0.0, np.abs(one - other))
    largest: Floats = np.where(np.isfinite(one) & np.isfinite(other) | same, apart, np.nan).max(axis=0)
    return largest


def difference_pixels(difference: Floats, bound: float | None, most: float) -> Pixels:
    """Return a difference (H, W) as pixels (H, W, 3).

    Up to the bound it is black to grey, beyond it red to yellow, which is ``most``; without a bound, black to white.
    Where it is NaN it is magenta. Where several elements share a pixel, the largest counts, so that a single wrong one
    is not lost.

    Args:
        difference: As ``difference_of`` returns it.
        bound: What is allowed.
        most: The largest finite difference of all that are shown on this scale.
    """
    undefined = _any(np.isnan(difference))
    difference = _blocks(np.nan_to_num(difference, nan=0.0, posinf=most)[None]).max(axis=(0, 2, 4))
    if bound is None:
        pixels = _between((0, 0, 0), (255, 255, 255), difference / (most or 1.0))
    else:
        beyond = difference > bound
        allowed = np.where(beyond, bound, difference)
        pixels = _between(*_ALLOWED, allowed / (bound or 1.0))
        pixels[beyond] = _between(*_BEYOND, difference / (most or 1.0))[beyond]
    pixels[undefined] = _NOT_FINITE
    return pixels


def _between(first: tuple[int, ...], last: tuple[int, ...], share: Floats) -> Pixels:
    """Return the colours on the way from the first to the last."""
    share = np.clip(share, 0.0, 1.0)[..., None]
    return np.round((1 - share) * first + share * last).astype(np.uint8)


def _any(pixels: npt.NDArray[np.bool]) -> npt.NDArray[np.bool]:
    """Whether any pixel of each block is true."""
    return np.asarray(_blocks(pixels[None]).any(axis=(0, 2, 4)))


def _blocks(image: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return an image (C, H, W) as (C, rows, k, columns, k), blocks that are shown as one pixel each."""
    height, width = image.shape[1:]
    k = math.ceil(max(height, width) / _MOST)
    padded = np.pad(image, ((0, 0), (0, -height % k), (0, -width % k)), mode="edge")
    return padded.reshape(image.shape[0], padded.shape[1] // k, k, padded.shape[2] // k, k)
