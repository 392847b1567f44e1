"""Data in files: one .npz or .npy file, or a folder of those or of images, as a source of batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from normswap.data import arrays
from normswap.data.arrays import Stored, members_of, read_stored
from normswap.data.batches import Batch, check_counts
from normswap.data.declared import (
    Named,
    Scale,
    Side,
    Tally,
    check_fits,
    chosen,
    fitted,
    is_sample,
    spelled_shape,
    turns_into_float,
)
from normswap.data.images import SUFFIXES as IMAGE_SUFFIXES
from normswap.data.images import ImageLayout, layout_of, read_image
from normswap.errors import DataError
from normswap.words import counted

__all__ = ["ArrayFile", "Files", "ImageFile", "check_paired", "open_files"]

_KINDS = "an .npz or .npy file, or a folder of those or of PNG or JPEG images"


@dataclass(frozen=True)
class ImageFile:
    """One image.

    Attributes:
        path: The file.
        layout: How the model takes it.
    """

    path: Path
    layout: ImageLayout
    samples: int = 1
    scaled: bool = True

    def batches(self, size: int, tally: Tally) -> Iterator[Batch]:
        """Yield the image as a batch of one."""
        yield Batch({self.layout.declared.name: read_image(self.path, self.layout, tally)}, where=str(self.path))


@dataclass(frozen=True)
class ArrayFile:
    """One .npz or .npy file.

    Attributes:
        path: The file.
        side: What it is read as.
        stored: Its arrays, by the names that the model has for them.
        samples: How many it holds.
        single: Whether it is one sample, its arrays without an axis of samples.
        scaled: Whether there are pixels that a scale turns into floats.
        scale: What 0 and 255 of uint8 become where the model takes floats.
    """

    path: Path
    side: Side
    stored: Mapping[str, Stored]
    samples: int
    single: bool
    scaled: bool
    scale: Scale | None

    def batches(self, size: int, tally: Tally) -> Iterator[Batch]:
        """Yield the samples, at most ``size`` at a time."""
        where = str(self.path)
        if self.single:
            parts = iter([tuple(stored.whole()[None] for stored in self.stored.values())])
        else:
            parts = zip(*(stored.slices(size) for stored in self.stored.values()), strict=True)
        for part in parts:
            found = dict(zip(self.stored, part, strict=True))
            yield Batch(
                {name: fitted(array, self.side.of(name), where, tally, self.scale) for name, array in found.items()},
                where=where,
            )


@dataclass(frozen=True)
class Files:
    """Samples in files, read one after the other.

    Attributes:
        path: What the user gave.
        files: In the order of their names; a file by itself is the only one.
        source: Where the data are from, for the report.
    """

    path: Path
    files: tuple[ArrayFile | ImageFile, ...]
    source: str
    once: bool = False  # files can be read again
    given: int | None = None  # and have no batches of their own

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(file.samples for file in self.files)

    @property
    def images(self) -> bool:
        """Whether the files are images."""
        return any(isinstance(file, ImageFile) for file in self.files)

    @property
    def scaled(self) -> bool:
        """Whether there are pixels that a scale turns into floats."""
        return any(file.scaled for file in self.files)

    def batches(self, size: int | None, tally: Tally) -> Iterator[Batch]:
        """Yield the samples, at most ``size`` at a time and none of two files together."""
        for file in self.files:
            yield from file.batches(size or 1, tally)


def open_files(path: str | os.PathLike[str], side: Side, scale: Scale | None, size: tuple[int, int] | None) -> Files:
    """Find the files of data and hold the headers of arrays to what the model says; no sample is read yet.

    The files of a folder are read in the order of their names; hidden ones and subfolders are not. They are images,
    or .npz and .npy files, each of which is a batch, its first axis the samples, or one sample, where it has an axis
    less than the model takes.

    Args:
        path: A file, or a folder.
        side: What they are read as.
        scale: What 0 and 255 of images and of uint8 arrays become.
        size: Width and height that images are brought to.

    Raises:
        DataError: If they are missing, damaged, mixed, or do not fit the model.
    """
    if not os.fspath(path):  # which Path takes for the current folder
        raise DataError(f"an empty path: expected {_KINDS}")
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, side, scale, size)
    if not path.exists():
        raise DataError(f"{path}: expected {_KINDS}, found nothing of this name")
    if path.suffix.lower() not in arrays.SUFFIXES:
        raise DataError(f"{path}: expected {_KINDS}, found a file {path.suffix or 'without a suffix'}")
    file = _array_file(path, side, scale, alone=True)
    shown = ", ".join(f"{name} {spelled_shape(stored.shape)}" for name, stored in file.stored.items())
    return Files(path, (file,), f"{path}: {shown}")


def check_paired(inputs: Files, targets: Files) -> None:
    """Hold targets to inputs: by position in two files, by file name and number of samples in two folders.

    Raises:
        DataError: If one has no partner.
    """
    folders = [files.path.is_dir() for files in (inputs, targets)]
    if folders[0] != folders[1]:
        kinds = ["a folder" if folder else "a file" for folder in folders]
        raise DataError(
            f"{targets.path}: expected {kinds[0]}, as {inputs.path} is, found {kinds[1]}; targets are paired with "
            "inputs by position in two files, or by file name in two folders"
        )
    if not folders[0] and inputs.samples != targets.samples:
        raise DataError(
            f"{targets.path}: expected {counted(inputs.samples, 'target')}, one for each sample of {inputs.path}, "
            f"found {targets.samples}; give as many, in the same order"
        )
    if folders[0]:
        _check_names(inputs, targets)


def _check_names(inputs: Files, targets: Files) -> None:
    partners = []
    for files in (inputs, targets):
        by_stem: dict[str, ArrayFile | ImageFile] = {}
        for file in files.files:
            other = by_stem.setdefault(file.path.stem, file)
            if other is not file:
                raise DataError(
                    f"{file.path}: expected one file of this name but for the suffix, found {other.path.name} too; "
                    "inputs and targets are paired by name, so rename one"
                )
        partners.append(by_stem)
    for one, others, folder in ((partners[0], partners[1], targets.path), (partners[1], partners[0], inputs.path)):
        lone = [file.path for stem, file in one.items() if stem not in others]
        if lone:
            more = f" (nor for {len(lone) - 1} others)" if len(lone) > 1 else ""
            raise DataError(
                f"{lone[0]}: expected a partner of the same name in {folder}, found none{more}; inputs and targets are "
                "paired by file name but for the suffix"
            )
    for stem, file in partners[0].items():
        if file.samples != partners[1][stem].samples:
            raise DataError(
                f"{partners[1][stem].path}: expected {counted(file.samples, 'target')}, one for each sample of "
                f"{file.path}, found {partners[1][stem].samples}; give as many, in the same order"
            )


def _open_folder(path: Path, side: Side, scale: Scale | None, size: tuple[int, int] | None) -> Files:
    entries = sorted(
        (entry for entry in path.iterdir() if not entry.name.startswith(".")), key=lambda e: (e.stem, e.name)
    )
    folders = [entry for entry in entries if entry.is_dir()]
    found: dict[str, list[Path]] = {"arrays": [], "images": [], "others": []}
    for entry in entries:
        if entry not in folders:
            found[_kind(entry)].append(entry)
    if found["arrays"] and found["images"]:
        raise DataError(
            f"{path}: expected images or arrays, found both, {found['images'][0].name} and {found['arrays'][0].name}; "
            "give a folder of one kind"
        )
    ignored = [counted(len(found["others"]), "other file")] * bool(found["others"])
    ignored += [counted(len(folders), "subfolder")] * bool(folders)
    unread = f" ({' and '.join(ignored)} not read)" if ignored else ""
    if found["images"]:
        if len(side.declared) > 1:
            raise DataError(
                f"{path}: expected arrays for {len(side.declared)} {side.word}s ({side.listed}), found a folder of "
                "images, which are one; give an .npz file"
            )
        (declared,) = side.declared or (Named(side.word),)
        layout = layout_of(declared, str(path), scale, size)
        images = tuple(ImageFile(entry, layout) for entry in found["images"])
        ends = "" if layout.scale is None else f", 0 and 255 as {layout.scale[0]:g} and {layout.scale[1]:g}"
        return Files(path, images, f"{path}: {counted(len(images), 'image')}{ends}{unread}")
    if not found["arrays"]:
        raise DataError(f"{path}: expected {_KINDS}, found a folder without any{unread}")
    files = tuple(_array_file(entry, side, scale, alone=False) for entry in found["arrays"])
    samples = counted(sum(file.samples for file in files), "sample")
    return Files(
        path, files, f"{path}: {counted(len(files), 'file')}, {samples} of {', '.join(files[0].stored)}{unread}"
    )


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "arrays" if suffix in arrays.SUFFIXES else "images" if suffix in IMAGE_SUFFIXES else "others"


def _array_file(path: Path, side: Side, scale: Scale | None, *, alone: bool) -> ArrayFile:
    """Read the headers of a file and hold them to what the model says."""
    members = chosen(members_of(path), side, str(path))
    stored = {name: read_stored(path, *member) for name, member in members.items()}
    single = not alone and all(is_sample(array.shape, side.of(name)) for name, array in stored.items())
    counts = {}
    for name, array in stored.items():
        shape = (1, *array.shape) if single else array.shape
        check_fits(shape, array.dtype, side.of(name), str(path), scale)
        counts[name] = shape[0]
    check_counts(counts, str(path))
    samples = next(iter(counts.values()))
    if not samples:
        raise DataError(f"{path}: expected samples, found none: {next(iter(counts))} has shape {spelled_shape(shape)}")
    scaled = any(turns_into_float(array.dtype, side.of(name)) for name, array in stored.items())
    return ArrayFile(path, side, stored, samples, single, scaled, scale)
