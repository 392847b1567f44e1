"""Pixels: which scale values get, and that a difference on its own scale hides nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normswap.layer import Array
from normswap.report import Check
from normswap.reports.pixels import difference_of, difference_pixels, image_pixels, scale_of
from normswap.verify.pictures import pictures_of

MAGENTA = [255, 0, 255]
SCALES = {
    "a sigmoid's": ([0.02, 0.97], (0, 1)),
    "a tanh's": ([-0.9, 0.95], (-1, 1)),
    "bytes": ([0, 250], (0, 255)),
    "within -1 and 1, but so little that it would look flat": ([-0.01, 0.01], (-0.01, 0.01)),
    "of its own": ([-3, 12], (-3, 12)),
    "constant": ([7, 7], (3.5, 10.5)),
    "constant and small": ([0, 0], (-0.5, 0.5)),
    "not finite": ([np.nan, -np.inf], (0, 1)),
    "finite in part": ([np.nan, -3, 12, np.inf], (-3, 12)),
}


@pytest.mark.parametrize(("values", "scale"), SCALES.values(), ids=SCALES)
def test_scales(values: list[float], scale: tuple[float, float]) -> None:
    assert scale_of(np.array(values)) == scale


def test_values_are_grey_from_black_to_white_and_cut_off_beyond() -> None:
    pixels = image_pixels(np.array([[[-9.0, -1, 0, 1, 9, np.nan, np.inf]]]), (-1.0, 1.0))
    assert pixels[0, :5, 0].tolist() == [0, 0, 128, 255, 255]
    assert (pixels[0, :5] == pixels[0, :5, :1]).all()
    assert pixels[0, 5:].tolist() == [MAGENTA, MAGENTA]


def test_colors_are_the_channels() -> None:
    image = np.zeros((3, 1, 3))
    image[[0, 1, 2], 0, [0, 1, 2]] = 1
    assert image_pixels(image, (0.0, 1.0))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_a_difference_is_the_largest_of_the_channels_and_nan_where_it_is_none() -> None:
    expected = np.array([[[0, 1, np.nan, np.inf, np.inf, np.nan]], [[0, 1, 0, 0, 0, 0]]])
    found = np.array([[[0.5, 1, np.nan, np.inf, -np.inf, 0]], [[0, 3, 0, 0, 0, 0]]])
    np.testing.assert_array_equal(difference_of(expected, found), [[0.5, 2, 0, 0, np.nan, np.nan]])


def test_a_difference_is_grey_up_to_the_bound_and_red_beyond() -> None:
    pixels = difference_pixels(np.array([[0.0, 0.5, 1, np.nextafter(1, 2), 4, np.nan]]), 1.0, 4.0)[0].tolist()
    assert pixels[:3] == [[0, 0, 0], [42, 42, 42], [85, 85, 85]]
    assert pixels[4:] == [[255, 225, 60], MAGENTA]
    red, green, blue = pixels[3]
    assert red > 200 > 110 > green > blue


def lightness(pixels: Array) -> Array:
    return np.asarray(pixels @ [0.2126, 0.7152, 0.0722])


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20), st.none() | st.floats(0, allow_infinity=True))
def test_a_larger_difference_is_never_darker(values: list[float], bound: float | None) -> None:
    ordered = np.sort(np.array([values]))
    pixels = difference_pixels(ordered, bound, float(ordered.max()))
    assert (np.diff(lightness(pixels)[0]) >= -1).all()
    if bound is not None:
        red = pixels[..., 0].astype(int) - pixels[..., 1] > 20
        assert ((red | (pixels[..., 1] == 225)) == (ordered > bound)).all()


@pytest.mark.parametrize("size", [319, 320, 321, 641, 1000])
def test_of_a_large_image_no_single_wrong_pixel_is_lost(size: int) -> None:
    difference = np.zeros((size, 7))
    difference[size - 1, 6] = 1.0
    pixels = difference_pixels(difference, 1e-6, 1.0)
    assert max(pixels.shape) <= 320
    assert (pixels[..., 0] > 200).sum() == (pixels == [255, 225, 60]).all(axis=2).sum() == 1  # as wrong as it is
    image = np.zeros((1, size, 7))
    image[0, 0, 0] = np.nan
    assert image_pixels(image, (0.0, 1.0))[0, 0].tolist() == MAGENTA


def pictures(value: Array, other: Array | None = None) -> list[tuple[str, str, float | None]]:
    checks = [Check("end to end", "y (as written)", True, 0.1, 0.5)]
    found = pictures_of({"y": value}, {"as written": {"y": value if other is None else other}}, checks)
    return [(picture.name, picture.how, picture.bound) for picture in found]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floating_images_are_shown_with_what_is_allowed(dtype: str, channels: int) -> None:
    import ml_dtypes  # noqa: F401  # gives NumPy bfloat16

    assert pictures(np.zeros((2, channels, 4, 4), dtype)) == [("y", "as written", 0.5)]


def test_of_integers_the_bound_is_a_share_of_elements_and_is_not_shown() -> None:
    assert pictures(np.zeros((2, 1, 4, 4), np.uint8)) == [("y", "as written", None)]


NO_IMAGES = [(1, 2, 4, 4), (1, 4, 4, 4), (3, 4, 4), (0, 3, 4, 4), (1, 3, 1, 4), (1, 3, 4, 1), (1, 3, 2, 2, 2), ()]


@pytest.mark.parametrize("shape", NO_IMAGES, ids=str)
def test_what_is_no_image_is_not_shown(shape: tuple[int, ...]) -> None:
    assert pictures(np.zeros(shape)) == []


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U3", "object"])
def test_what_has_no_grey_is_not_shown(dtype: str) -> None:
    assert pictures(np.zeros((1, 1, 4, 4), dtype)) == []


def test_an_output_of_another_shape_or_type_is_not_shown() -> None:
    assert pictures(np.zeros((1, 1, 4, 4)), np.zeros((1, 3, 4, 4))) == []
    assert pictures(np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 4, 4), "U3")) == []


def test_pictures_are_copies_of_few_samples() -> None:
    value = np.zeros((9, 1, 4, 4))
    (picture,) = pictures_of({"y": value}, {"": {"y": value}}, [])
    assert len(picture.expected) == len(picture.found) == 4
    assert picture.expected.base is None
    assert not math.isnan(picture.found.sum())
