"""Images as a model takes them: PNG and JPEG through Pillow, upright, in its channels, layout, size and range."""

from __future__ import annotations

import importlib
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from normswap.data.declared import Declared, Scale, Tally, element_type, fitted, scaled, spelled_shape
from normswap.errors import DataError, first_line
from normswap.layer import Array, Dim

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SCALES", "SUFFIXES", "ImageLayout", "layout_of", "parse_size", "read_image", "scale_of", "size_of"]

SUFFIXES = (".png", ".jpg", ".jpeg")
SCALES: dict[str, Scale] = {"0,1": (0.0, 1.0), "-1,1": (-1.0, 1.0), "0,255": (0.0, 255.0)}
_MODES = {1: "L", 3: "RGB"}  # Pillow's names, by the number of channels
# What each mode of a file becomes; an alpha channel must be opaque to be dropped.
_HELD = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class ImageLayout:
    """How a model takes images.

    Attributes:
        declared: What the model says.
        channels: 1, 3, or None for those that each file has.
        last: Whether the channels are the last axis, (N, H, W, C), and not the second.
        width: Of the images that it takes; no number where it takes any.
        height: The same.
        dtype: Element type.
        scale: What 0 and 255 become; None for pixels as they are.
        size: Width and height that images are brought to, None for those that they have.
    """

    declared: Declared
    channels: int | None
    last: bool
    width: Dim
    height: Dim
    dtype: np.dtype[np.generic]
    scale: Scale | None = None
    size: tuple[int, int] | None = None

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the model takes images of this width and height."""
        pairs = zip((self.width, self.height), size, strict=True)
        return all(not isinstance(own, int) or own == one for own, one in pairs)


def scale_of(scale: str | Scale | None) -> Scale | None:
    """Return what 0 and 255 become, which may be given by a key of SCALES.

    Raises:
        DataError: If the key is unknown.
    """
    if not isinstance(scale, str):
        return scale
    if scale not in SCALES:
        raise DataError(f"--scale {scale}: expected one of {', '.join(SCALES)}")
    return SCALES[scale]


def size_of(size: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a width and a height, which may be given as text."""
    return parse_size(size) if isinstance(size, str) else size


def parse_size(text: str) -> tuple[int, int]:
    """Read a width and a height.

    >>> parse_size("256x192")
    (256, 192)

    Raises:
        DataError: If they are none.
    """
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise DataError(f"expected a width and a height as --size 256x192, found {text!r}")
    return int(parts[0]), int(parts[1])


def layout_of(declared: Declared, where: str, scale: Scale | None, size: tuple[int, int] | None) -> ImageLayout:
    """Find out how a model takes images.

    Args:
        declared: The input, or the output that targets are held to.
        where: Where the images are, for a sentence.
        scale: What 0 and 255 become.
        size: Width and height that images are brought to.

    Raises:
        DataError: If it takes none, or scale or size do not fit it.
    """
    name, dims = declared.name, declared.dims or (None,) * 4
    axis = next((axis for axis in (1, 3) if len(dims) == 4 and dims[axis] in _MODES), 1)
    if len(dims) != 4 or (isinstance(dims[axis], int) and dims[axis] not in _MODES):
        raise DataError(
            f"{where}: expected a model of images, shape NxCxHxW or NxHxWxC with C 1 or 3, found that {name!r} is "
            f"{spelled_shape(dims)}; give arrays, in .npz or .npy files"
        )
    dtype = element_type(declared) or np.dtype(np.float32)
    if dtype == np.uint8 and scale not in (None, SCALES["0,255"]):
        raise DataError(f"--scale: {name!r} is uint8, which has the range of pixels already; leave --scale out")
    if dtype != np.uint8 and dtype.kind in "biu":
        raise DataError(
            f"{where}: expected a model that takes images as floats or uint8, found that {name!r} is {dtype.name}; "
            "give arrays, in .npz or .npy files"
        )
    if dtype != np.uint8 and scale is None:
        raise DataError(
            f"{where}: images hold 0 to 255, and {name!r} is {dtype.name}; say what 0 and 255 become with --scale "
            f"{' or '.join(SCALES)}, as the model was trained"
        )
    height, width = dims[1:3] if axis == 3 else dims[2:]
    channels = dims[axis]
    layout = ImageLayout(declared, channels if isinstance(channels, int) else None, axis == 3, width, height, dtype)
    if size is not None and not layout.takes(size):
        raise DataError(
            f"--size {spelled_shape(size)}: expected the width and height that {name!r} has, "
            f"{spelled_shape((width, height))}"
        )
    return replace(layout, scale=None if dtype == np.uint8 else scale, size=size)


def read_image(path: Path, layout: ImageLayout, tally: Tally) -> Array:
    """Read one image as a batch of one.

    Args:
        path: A PNG or JPEG file.
        layout: How the model takes it.
        tally: Counts what was done to it.

    Raises:
        DataError: If it is damaged, too large, transparent, of more than 8 bits, or not as the model takes it.
    """
    with _trouble_in(path) as pillow:
        image = _upright(_plain(path, pillow), tally)
        has = 1 if image.mode == "L" else 3
        channels = layout.channels or has
        if channels != has:
            tally.add("made {image} gray" if has == 3 else "gave {image} three equal channels")
        image = image.convert(_MODES[channels])
        if layout.size is not None and image.size != layout.size:
            width, height = layout.size
            distorted = not math.isclose(image.width * height, image.height * width, rel_tol=0.01)
            tally.add(f"resized {{image}} to {width}x{height}{', not in proportion' * distorted}")
            image = image.resize(layout.size, pillow.Resampling.BICUBIC)
    if not layout.takes(image.size):
        raise DataError(
            f"{path}: expected {spelled_shape((layout.width, layout.height))} (width x height), which "
            f"{layout.declared.name!r} has, found {spelled_shape(image.size)}; resize all images with --size"
        )
    pixels = np.array(image).reshape(1, image.height, image.width, channels)
    if not layout.last:
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    array = pixels if layout.scale is None else scaled(pixels, layout.scale, layout.dtype)
    return fitted(array, layout.declared, str(path), tally)


def _plain(path: Path, pillow: ModuleType) -> Image:
    """Load an image with 8 bits a channel, in mode L or RGB."""
    with path.open("rb") as file:
        head = file.read(25)
        if head.startswith(_PNG) and head[-1] == 16:  # Pillow would read 8 of them, without a word
            raise DataError(f"{path}: expected 8 bits a channel, found 16; give such images as arrays in .npz files")
        with pillow.open(file, formats=("PNG", "JPEG")) as image:
            if image.mode not in _HELD:
                raise DataError(f"{path}: expected a gray or RGB image, found {image.mode}; convert it first")
            if getattr(image, "is_animated", False):
                raise DataError(f"{path}: expected one image, found {image.n_frames} frames; write each to a file")
            image.load()
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise DataError(f"{path}: expected no transparent pixels, found some; lay it over a background first")
            plain: Image = image.convert(_HELD[image.mode])
            return plain


def _upright(image: Image, tally: Tally) -> Image:
    """Turn an image as its EXIF orientation says that it is to be seen."""
    from PIL import ImageOps

    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    tally.add("turned {image} upright, as EXIF data say")
    return ImageOps.exif_transpose(image)


@contextmanager
def _trouble_in(path: Path) -> Iterator[ModuleType]:
    """Give Pillow, and say what is wrong with an image in one sentence; its limit on the number of pixels holds."""
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise DataError(f"{path}: reading images takes pillow; pip install 'normswap[images]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # EXIF data that are damaged, say
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            yield pillow
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: expected no more than {pillow.MAX_IMAGE_PIXELS} pixels, which is Pillow's limit against "
            "decompression bombs, found more; make it smaller first"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, UserWarning) as error:
        raise DataError(f"{path}: expected a PNG or JPEG image: {first_line(error, 'it is damaged')}") from error
