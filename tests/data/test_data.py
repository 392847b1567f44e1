"""DATA: what is read gives the samples that it holds, and whatever else is given is refused in one sentence."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from support import ROOT
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from normswap.backends import backend_for
from normswap.data import SCALES, Data, Named, batches_of, parse_size
from normswap.errors import DataError
from normswap.layer import Array, Dim

H, W = 4, 5
X = Named("x", "float32", ("N", 3, H, W))
Y = Named("y", "float32", ("N", 1, H, W))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def samples(count: int = 6) -> Array:
    return numbers(count, 3, H, W)


def targets(count: int = 6) -> Array:
    return numbers(count, 1, H, W, seed=1)


def pixels(count: int = 1, channels: int = 3, height: int = H, width: int = W) -> Array:
    return np.random.default_rng(2).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def declared(*dims: Dim, dtype: str = "float32", name: str = "x") -> Named:
    return Named(name, dtype, dims)


def all_of(data: Data, name: str = "x") -> Array:
    return np.concatenate([batch[name] for batch in data])


def sizes(data: Data) -> list[int]:
    return [len(next(iter(batch.values()))) for batch in data]


def saved(path: str, array: Array) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    np.save(path, array)
    return path


def image(path: str, shown: Array | Image.Image, **options: Any) -> str:
    """Write an image, and return the folder that it is in."""
    Path(path).parent.mkdir(exist_ok=True)
    made = shown if isinstance(shown, Image.Image) else Image.fromarray(shown.squeeze())
    made.save(path, **options)
    return str(Path(path).parent)


def each_saved(folder: str, arrays: Iterable[Array], name: str = "s{}.npy") -> str:
    for index, array in enumerate(arrays):
        saved(f"{folder}/{name.format(index)}", array)
    return folder


def zipped(**arrays: Array) -> str:
    np.savez("data.npz", **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for its options
    return "data.npz"


def compressed(**arrays: Array) -> str:
    np.savez_compressed("data.npz", **arrays)  # type: ignore[arg-type]
    return "data.npz"


def zips(folder: str) -> str:
    Path(folder).mkdir()
    for index, part in enumerate(np.split(samples(), [1, 4])):
        np.savez(f"{folder}/{index}.npz", x=part, other=part)
    return folder


# --- What is read ---------------------------------------------------------------------------------------------

FILES: dict[str, Callable[[], str]] = {
    "npz": lambda: zipped(x=samples()),
    "npz, compressed": lambda: compressed(x=samples()),
    "npz, the only array": lambda: zipped(image=samples()),
    "npz, with an output beside": lambda: zipped(image=samples(), y=targets()),
    "npz, with objects beside": lambda: zipped(x=samples(), more=np.array([{}], object)),
    "npz, with more beside": lambda: zipped(a=targets(2), x=samples(), b=np.float64(1)),
    "npy": lambda: saved("data.npy", samples()),
    "npy, the other byte order": lambda: saved("data.npy", samples().astype(">f4")),
    "npy, no C order, but not Fortran's": lambda: saved(
        "data.npy", np.ascontiguousarray(samples().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    ),
    "npy, version 2 of the format": lambda: version_two("data.npy"),
    "folder of samples": lambda: each_saved("data", samples()),
    "folder of batches": lambda: each_saved("data", np.split(samples(), [1, 4])),
    "folder of batches and samples": lambda: each_saved("data", [*samples()[:2], samples()[2:]]),
    "folder of npz": lambda: zips("data"),
    "folder with other things": lambda: with_others(each_saved("data", samples())),
}


def version_two(path: str) -> str:
    with Path(path).open("wb") as file:
        np.lib.format.write_array(file, samples(), version=(2, 0))
    return path


def with_others(folder: str) -> str:
    (Path(folder) / ".hidden.npy").write_bytes(b"")
    (Path(folder) / "list.txt").write_text("s0")
    saved(f"{folder}/more/s9.npy", samples())
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_files_of_arrays_give_their_samples_again_and_again(write: Callable[[], str], batch_size: int) -> None:
    path = write()
    data = batches_of(path, inputs=[X], outputs=[Y], batch_size=batch_size)
    assert (data.samples, data.once) == (6, False)
    assert data.source.startswith(f"{path}: ")
    assert len(data) == -(-6 // batch_size)
    for _ in range(2):
        assert sizes(data) == [batch_size] * (6 // batch_size) + [6 % batch_size] * bool(6 % batch_size)
        found = all_of(data)
        np.testing.assert_array_equal(found, samples())
        assert found.dtype == np.float32 and found.dtype.isnative
    assert data.notes == ()
    assert all(array.flags.writeable for batch in data for array in batch.values())


def test_what_is_not_read_of_a_folder_is_said() -> None:
    data = batches_of(with_others(each_saved("data", samples())), inputs=[X])
    assert data.source == "data: 6 files, 6 samples of x (1 other file and 1 subfolder not read)"


def test_several_inputs_are_read_by_name() -> None:
    data = batches_of(zipped(b=targets(), a=samples()), inputs=[Named("a"), Named("b")], batch_size=4)
    assert data.source == "data.npz: a 6x3x4x5, b 6x1x4x5"
    assert [list(batch) for batch in data] == [["a", "b"]] * 2
    np.testing.assert_array_equal(all_of(data, "b"), targets())


def test_where_the_model_says_nothing_data_are_passed_on() -> None:
    assert [list(batch) for batch in batches_of(zipped(a=samples(), b=targets()))] == [["a", "b"]]
    assert [list(batch) for batch in batches_of(saved("data.npy", samples()))] == [["input"]]
    (batch,) = batches_of(samples().astype(np.float64))
    assert batch["input"].dtype == np.float64


def test_the_shipped_model_and_images() -> None:
    backend = backend_for("lowlight.onnx")
    inputs = backend.inputs(backend.load(ROOT / "fixtures" / "lowlight.onnx")).declared
    path = ROOT / "fixtures" / "lowlight_images.npz"
    data = batches_of(path, inputs=inputs, targets=path, outputs=[Named("restored")])
    assert data.source == f"{path}: dark 16x3x64x64"
    assert data.targets == f"{path}: restored 16x3x64x64"
    with np.load(path) as archive:
        for start, (given, wanted) in zip((0, 8), data.pairs(), strict=True):
            np.testing.assert_array_equal(given["dark"], archive["dark"][start : start + 8])
            np.testing.assert_array_equal(wanted["restored"], archive["target"][start : start + 8])


# --- Types and values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64])
def test_floats_are_cast_and_it_is_said(stored: type[np.floating[Any]], wanted: str) -> None:
    array: Array = samples().astype(stored)
    data = batches_of(saved("data.npy", array), inputs=[declared("N", 3, H, W, dtype=wanted)])
    dtype = np.dtype(getattr(ml_dtypes, wanted, wanted))
    np.testing.assert_array_equal(all_of(data), array.astype(dtype))
    same = dtype == array.dtype
    assert data.notes == (() if same else (f"x: {array.dtype.name} was cast to {wanted}, which the model takes",))


def test_integers_become_wider_ones_alone() -> None:
    array = np.arange(6, dtype=np.int32)
    data = batches_of(saved("data.npy", array), inputs=[declared("N", dtype="int64")])
    np.testing.assert_array_equal(all_of(data), array)
    assert data.notes == ("x: int32 was cast to int64, which the model takes",)


@pytest.mark.parametrize(("scale", "ends"), SCALES.items())
def test_pixels_become_floats_by_the_scale(scale: str, ends: tuple[float, float]) -> None:
    array: Array = np.array([[0, 255, 51]], np.uint8)
    data = batches_of(saved("data.npy", array), inputs=[declared("N", 3)], scale=SCALES[scale])
    low, high = ends
    np.testing.assert_array_equal(all_of(data), np.array([[low, high, low + (high - low) / 5]], np.float32))


def test_not_a_number_is_counted() -> None:
    array = samples()
    array[1, 0, 0, 0], array[4, 1], array[5, 2, 3, 4] = np.nan, np.inf, np.nan
    data = batches_of(saved("data.npy", array), inputs=[X], batch_size=4)
    for _ in range(2):  # each pass counts anew
        assert sizes(data) == [4, 2]
        assert data.notes == ("x: NaN or infinity in 3 samples",)


def test_what_overflows_in_the_cast_is_counted() -> None:
    data = batches_of(np.full((2, 1), 1e5, np.float32), inputs=[declared("N", 1, dtype="float16")])
    assert np.isinf(all_of(data)).all()
    assert "x: NaN or infinity in 2 samples" in data.notes


# --- Images ---------------------------------------------------------------------------------------------------


def chequered() -> Image.Image:
    """A palette image."""
    made = Image.new("P", (W, H))
    made.putpalette([255, 0, 0, 0, 0, 255])
    made.putdata([(i % 2) for i in range(W * H)])
    return made


def turned(orientation: int) -> dict[str, Any]:
    """Options that write an image with this EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


IMAGES: dict[str, tuple[Callable[[], Image.Image], dict[str, Any], Callable[[Array], Array]]] = {
    "RGB": (lambda: Image.fromarray(pixels()[0]), {}, lambda a: a),
    "gray": (lambda: Image.fromarray(pixels(1, 1)[0, :, :, 0]), {}, lambda a: a),
    "palette": (chequered, {}, lambda a: a),
    "one bit": (lambda: Image.fromarray(pixels(1, 1)[0, :, :, 0]).convert("1"), {}, lambda a: a),
    "opaque alpha": (lambda: with_alpha(255), {}, lambda a: a),
    "upside down": (lambda: Image.fromarray(pixels()[0]), turned(3), lambda a: a[::-1, ::-1]),
    "on its side": (lambda: Image.fromarray(pixels(1, 3, W, H)[0]), turned(6), lambda a: np.rot90(a, -1)),
}


def with_alpha(least: int) -> Image.Image:
    alpha = np.full((H, W, 1), 255, np.uint8)
    alpha[1, 2] = least
    return Image.fromarray(np.concatenate([pixels()[0], alpha], axis=2))


LAYOUTS: dict[str, tuple[Dim, ...]] = {
    "NCHW": ("N", 3, H, W),
    "NHWC": ("N", H, W, 3),
    "NCHW, any": ("N", 3, None, "w"),
    "gray": ("N", 1, H, W),
    "uint8": ("N", 3, H, W),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("made", "options", "seen"), IMAGES.values(), ids=IMAGES)
def test_images_are_read_as_they_are_seen(
    made: Callable[[], Image.Image], options: dict[str, Any], seen: Callable[[Array], Array], layout: str
) -> None:
    dims = LAYOUTS[layout]
    dtype = "uint8" if layout == "uint8" else "float32"
    path = image("photos/a.png", made(), **options)
    data = batches_of(path, inputs=[declared(*dims, dtype=dtype)], scale=None if layout == "uint8" else (0, 255))
    expected = seen(np.array(made().convert("L" if layout == "gray" else "RGB")).reshape(*made().size[::-1], -1))
    if layout != "NHWC":
        expected = expected.transpose(2, 0, 1)
    (batch,) = data
    np.testing.assert_array_equal(batch["x"], expected[None])
    assert batch["x"].dtype == dtype
    assert batch["x"].flags.c_contiguous


def test_what_was_done_to_images_is_said() -> None:
    for name in "ab":
        image(f"photos/{name}.png", pixels(1, 1, 8, 10))
    image("photos/c.png", pixels(1, 3, 8, 8), **turned(6))
    data = batches_of("photos", inputs=[X], scale=(-1, 1), size=(W, H))
    assert data.source == "photos: 3 images, 0 and 255 as -1 and 1"
    assert all_of(data).shape == (3, 3, H, W)
    assert data.notes == (
        "gave 2 images three equal channels",
        "resized 2 images to 5x4",
        "turned 1 image upright, as EXIF data say",
        "resized 1 image to 5x4, not in proportion",
    )


def test_images_in_color_become_gray_where_the_model_is() -> None:
    data = batches_of(image("photos/a.png", pixels()), inputs=[declared("N", 1, H, W)], scale=(0, 1))
    assert all_of(data).shape == (1, 1, H, W)
    assert data.notes == ("made 1 image gray",)


def test_images_are_read_by_name_and_jpeg_too() -> None:
    for name, level in (("b.png", 20), ("c.JPG", 30), ("a.jpeg", 10)):
        image(f"photos/{name}", np.full((H, W, 3), level, np.uint8))
    data = batches_of("photos", inputs=[X], scale=SCALES["0,255"], batch_size=2)
    assert sizes(data) == [2, 1]
    np.testing.assert_allclose(all_of(data).mean(axis=(1, 2, 3)), [10, 20, 30], atol=1)


def test_a_jpeg_is_turned_upright_too() -> None:
    path = image("photos/a.jpg", pixels(1, 3, W, H), **turned(6))
    assert all_of(batches_of(path, inputs=[X], scale=(0, 1))).shape == (1, 3, H, W)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [H * W - 1, H * W // 2 - 1])
def test_the_limit_of_pillow_is_kept(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image("photos/a.png", pixels())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # above it Pillow warns, above twice of it it refuses
    refused(f"no more than {limit} pixels", path, **TAKES_IMAGES)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W)
    assert len(list(batches_of(path, **TAKES_IMAGES))) == 1


def test_images_of_several_sizes_are_read_one_at_a_time() -> None:
    image("photos/a.png", pixels())
    image("photos/b.png", pixels(1, 3, 6, 7))
    shapes = [batch["x"].shape for batch in batches_of(
        "photos", inputs=[declared("N", 3, None, None)], scale=(0, 1), batch_size=1
    )]  # fmt: skip
    assert shapes == [(1, 3, H, W), (1, 3, 6, 7)]


def test_without_pillow_images_are_refused_and_arrays_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = image("photos/a.png", pixels())
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"pip install 'normswap\[images\]'"):
        list(batches_of(path, inputs=[X], scale=(0, 1)))


# --- Python ---------------------------------------------------------------------------------------------------


class Stream(IterableDataset[Any]):
    """A data set of torch that has no length."""

    def __iter__(self) -> Iterator[Any]:
        return zip(torch.from_numpy(samples()), torch.from_numpy(targets()), strict=True)


def loader(batch_size: int = 4, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.from_numpy(samples()), torch.from_numpy(targets())), batch_size, **options)


PYTHON: dict[str, tuple[Callable[[], Any], bool]] = {  # and whether targets come with it
    "an array": (samples, False),
    "a tensor": (lambda: torch.from_numpy(samples()).requires_grad_(), False),
    "arrays by name": (lambda: {"x": samples(), "y": targets()}, True),
    "arrays by name, one called target": (lambda: {"x": samples(), "target": targets()}, True),
    "arrays by name, with more beside": (lambda: {"more": 1, "x": samples(), "text": "text"}, False),
    "a list of arrays": (lambda: np.split(samples(), [1, 4]), False),
    "a list of samples": (lambda: list(samples()), False),
    "a list of pairs": (lambda: [(samples(), targets())], True),
    "a list of lists": (lambda: [[samples()]], False),
    "a list of pairs, by name": (lambda: [(samples(), {"y": targets()})], True),
    "a list of dictionaries": (lambda: [{"x": samples()[:4], "more": "text"}, {"x": samples()[4:], "more": 1}], False),
    "a loader": (loader, True),
    "a loader of one": (lambda: loader(1), True),
    "a loader without a length": (lambda: DataLoader(Stream(), 4), True),
    "a data set": (lambda: loader().dataset, True),
    "a function": (lambda: lambda: iter([samples()]), False),
}


@pytest.mark.parametrize("batch_size", [None, 1, 4])
@pytest.mark.parametrize(("make", "with_targets"), PYTHON.values(), ids=PYTHON)
def test_python_gives_its_samples_again_and_again(
    make: Callable[[], Any], with_targets: bool, batch_size: int | None
) -> None:
    data = batches_of(make(), inputs=[X], outputs=[Y], batch_size=batch_size)
    for _ in range(2):
        np.testing.assert_array_equal(all_of(data), samples())
        found = [wanted for _, wanted in data.pairs()]
        if with_targets:
            np.testing.assert_array_equal(np.concatenate([wanted["y"] for wanted in found]), targets())
        else:
            assert not any(found)
        assert data.samples == 6
    if batch_size is not None:
        assert sizes(data) == [batch_size] * (6 // batch_size) + [6 % batch_size] * bool(6 % batch_size)


def test_batches_of_a_loader_are_kept_unless_others_are_asked_for() -> None:
    data = batches_of(loader(), inputs=[X], outputs=[Y])
    assert (len(data), sizes(data)) == (2, [4, 2])
    for size, expected in ((5, [5, 1]), (1, [1] * 6), (8, [6])):
        assert sizes(data.batched(size)) == expected
        np.testing.assert_array_equal(all_of(data.batched(size)), samples())


def test_the_length_is_told_where_it_is_known() -> None:
    data = batches_of(DataLoader(Stream(), 4), inputs=[X], outputs=[Y], batch_size=4)
    with pytest.raises(TypeError, match="not known"):
        len(data)
    assert list(data)  # list asks for the length too
    assert (len(data), data.samples) == (2, 6)


def test_labels_of_single_samples() -> None:
    data = batches_of([(sample, 7) for sample in samples()], inputs=[X], batch_size=4)
    assert [wanted["target"].tolist() for _, wanted in data.pairs()] == [[7] * 4, [7] * 2]


def test_a_bfloat16_tensor_is_an_array() -> None:
    data = batches_of([torch.ones(2, 1, dtype=torch.bfloat16)], inputs=[declared("N", 1, dtype="bfloat16")])
    assert all_of(data).dtype == ml_dtypes.bfloat16
    assert data.notes == ()


def test_an_iterator_is_read_once_and_no_second_pass_is_empty() -> None:
    data = batches_of(iter([samples()]), inputs=[X])
    assert data.once
    np.testing.assert_array_equal(all_of(data), samples())
    for again in (data, data.batched(2)):
        with pytest.raises(DataError, match="found an iterator"):
            list(again)


@pytest.mark.parametrize("change", [1, 5])
def test_passes_that_differ_are_refused(change: int) -> None:
    passes = iter([samples(), samples(), samples()])

    def augmented() -> Iterator[Array]:
        array = next(passes)
        array[change] += len(seen)
        seen.append(array)
        return iter(np.split(array, 3))

    seen: list[Array] = []
    data = batches_of(augmented, inputs=[X])
    assert sizes(data) == [2, 2, 2]
    with pytest.raises(DataError, match="shuffle"):
        list(data)


def test_a_shuffled_loader_is_refused_before_its_second_pass_has_begun() -> None:
    torch.manual_seed(0)
    data = batches_of(loader(shuffle=True), inputs=[X], outputs=[Y])
    assert sizes(data) == [4, 2]
    with pytest.raises(DataError, match="shuffle"):
        next(iter(data))


def test_a_pass_that_ended_early_says_nothing_of_the_next() -> None:
    data = batches_of(loader(1), inputs=[X], outputs=[Y])
    next(iter(data))
    np.testing.assert_array_equal(all_of(data), samples())


def test_reading_arrays_imports_neither_torch_nor_pillow() -> None:
    path = saved("data.npy", samples())
    code = f"""
import sys
from normswap.data import batches_of
assert [len(batch["input"]) for batch in batches_of({path!r})] == [6]
assert not {{"torch", "onnx", "onnxruntime", "PIL"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Batches --------------------------------------------------------------------------------------------------


def test_a_static_batch_dictates_and_the_rest_is_said_to_be_left_out() -> None:
    data = batches_of(saved("data.npy", samples()), inputs=[declared(4, 3, H, W)])
    assert (data.batch_size, len(data), sizes(data)) == (4, 1, [4])
    assert data.notes == ("left out the last 2 samples: the model takes batches of 4",)
    assert data.samples == 6
    from_loader = batches_of(loader(5), inputs=[declared(4, 3, H, W)], outputs=[Y])
    np.testing.assert_array_equal(all_of(from_loader), samples()[:4])


def test_memory_does_not_grow_with_the_data() -> None:
    count = 4000
    each_saved("folder", [numbers(count // 4, 3, 16, 16)] * 4)
    array = np.concatenate([numbers(count // 4, 3, 16, 16)] * 4)
    paths = ["folder", saved("data.npy", array), zipped(x=array)]
    paths.append(Path(compressed(x=array)).rename("small.npz").name)
    zipped(x=array)
    size = array.nbytes
    del array
    for path in paths:
        data = batches_of(path, inputs=[declared("N", 3, 16, 16)], targets=path, outputs=[declared("N", 3, 16, 16)])
        tracemalloc.start()
        for _ in data.pairs():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size / 10, path


# --- Targets --------------------------------------------------------------------------------------------------

PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "npz and npz": (lambda: zipped(x=samples()), lambda: targets_npz("t.npz")),
    "the same npz": (lambda: zipped(x=samples(), y=targets()), lambda: "data.npz"),
    "the same npz, another name": (lambda: zipped(x=samples(), truth=targets()), lambda: "data.npz"),
    "npz and npy": (lambda: zipped(x=samples()), lambda: saved("t.npy", targets())),
    "folders of samples": (lambda: each_saved("data", samples()), lambda: each_saved("t", targets())),
    "folders of batches": (
        lambda: each_saved("data", np.split(samples(), 2)), lambda: each_saved("t", np.split(targets(), 2)),
    ),
    "arrays": (samples, targets),
    "loaders of other sizes": (lambda: [samples()], lambda: np.split(targets(), [1, 4])),
    "loaders of what is not a target by itself": (lambda: [samples()], lambda: [{"target": targets()}]),
    "lists of lists": (lambda: [[samples()]], lambda: [[targets()]]),
    "a file and a loader": (lambda: zipped(x=samples()), lambda: np.split(targets(), [1, 4])),
}  # fmt: skip


def targets_npz(path: str) -> str:
    np.savez(path, y=targets())
    return path


@pytest.mark.parametrize("batch_size", [None, 1, 4])
@pytest.mark.parametrize(("given", "wanted"), PAIRS.values(), ids=PAIRS)
def test_targets_are_paired(given: Callable[[], Any], wanted: Callable[[], Any], batch_size: int | None) -> None:
    data = batches_of(given(), inputs=[X], targets=wanted(), outputs=[Y], batch_size=batch_size)
    pairs = list(data.pairs())
    np.testing.assert_array_equal(np.concatenate([ours["x"] for ours, _ in pairs]), samples())
    np.testing.assert_array_equal(np.concatenate([theirs["y"] for _, theirs in pairs]), targets())
    assert data.targets


def test_images_are_paired_by_name_whatever_their_suffix() -> None:
    for name, level in (("a", 10), ("c", 30), ("b", 20)):
        image(f"photos/{name}.png", np.full((H, W, 3), level, np.uint8))
        saved(f"wanted/{name}.npy", np.full((1, H, W), level, np.float32))
    data = batches_of("photos", inputs=[X], targets="wanted", outputs=[Y], scale=(0, 255))
    for given, wanted in data.pairs():
        np.testing.assert_array_equal(given["x"][:, :1], wanted["y"])
    assert data.samples == 3


def test_targets_of_nothing_declared_are_not_checked() -> None:
    data = batches_of(samples(), inputs=[X], targets=np.arange(6))
    ((_, wanted),) = data.pairs()
    np.testing.assert_array_equal(wanted["target"], np.arange(6))


# --- What is refused ------------------------------------------------------------------------------------------


def broken(path: str, content: bytes) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_bytes(content)
    return path


def cut_short(path: str, by: int = 10) -> str:
    return broken(path, Path(path).read_bytes()[:-by])


def flipped(path: str) -> str:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 0xFF
    return broken(path, bytes(content))


def another_checksum(path: str) -> str:
    """Change nothing but the checksum of an archive's only member, in both places where it stands."""
    with zipfile.ZipFile(path) as archive:
        checksum = archive.infolist()[0].CRC.to_bytes(4, "little")
    return broken(path, Path(path).read_bytes().replace(checksum, b"\0\0\0\0"))


def pickled(path: str) -> str:
    np.save(path, np.array([{}], object), allow_pickle=True)
    return path


def member(name: str, content: bytes) -> str:
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr(name, content)
    return "data.npz"


def folder_of(*files: str) -> str:
    Path("data").mkdir()
    for name in files:
        Path("data", name).write_bytes(b"?")
    return "data"


BAD_FILES: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: "lost.npz", "lost.npz: .*found nothing of this name"),
    "another suffix": (lambda: broken("data.txt", b"x"), "found a file .txt"),
    "no suffix": (lambda: broken("data", b"x"), "found a file without a suffix"),
    "an empty npz": (lambda: broken("data.npz", b""), "expected an .npz file: File is not a zip file"),
    "text as npz": (lambda: broken("data.npz", b"words" * 99), "expected an .npz file"),
    "an npy as npz": (lambda: str(Path(saved("d.npy", samples())).rename("data.npz")), "expected an .npz file"),
    "a pickle": (lambda: broken("data.npy", pickle.dumps([1])), "expected an .npy file"),
    "an empty npy": (lambda: broken("data.npy", b""), "expected an .npy file"),
    "pickled objects": (lambda: pickled("data.npy"), "data.npy: expected numbers, found pickled objects"),
    "pickled objects in npz": (lambda: zipped(x=np.array([{}], object)), "data.npz: 'x': .*pickled objects"),
    "an npy cut short": (lambda: cut_short(saved("data.npy", samples())), "expected 1440 bytes.*found 1430; .*damaged"),
    "an npz cut short": (lambda: cut_short(zipped(x=samples())), "expected an .npz file"),
    "an npz flipped": (lambda: flipped(zipped(x=samples())), "data.npz: expected an .npz file: Bad CRC-32"),
    "a compressed npz flipped": (lambda: flipped(compressed(x=samples())), "data.npz: expected an .npz file"),
    "a member that is no array": (lambda: member("x", b"hello"), "expected an .npz file"),
    "a member that is no array, by its name": (lambda: member("x.npy", b"hello" * 9), "expected an .npz file"),
    "no arrays": (lambda: zipped(), "expected arrays by input name.*found none"),
    "several arrays, none of them it": (lambda: zipped(a=samples(), b=samples()), "model takes x, found a, b; save"),
    "no samples": (lambda: zipped(x=samples(0)), "expected samples, found none: x has shape 0x3x4x5"),
    "Fortran order": (lambda: saved("data.npy", np.asfortranarray(samples())), "Fortran order.*ascontiguousarray"),
    "another shape": (lambda: zipped(x=samples()[:, :2]), "'x': expected shape Nx3x4x5, found 6x2x4x5; give data of"),
    "no axis of samples": (lambda: zipped(x=samples()[0]), "found 3x4x5; the first axis is samples"),
    "a scalar": (lambda: zipped(x=np.float32(1)), "found scalar"),
    "integers": (lambda: zipped(x=samples().astype(np.int64)), "expected float32, found int64, which is not cast"),
    "booleans": (lambda: zipped(x=samples() > 0), "expected float32, found bool, which is not cast"),
    "pixels": (lambda: zipped(x=samples().astype(np.uint8)), "found uint8; say what 0 and 255 become with --scale 0,1"),
    "complex numbers": (lambda: zipped(x=samples() * 1j), "expected numbers, found complex64"),
    "words": (lambda: zipped(x=np.array(["a"])), "'x': expected shape"),
    "bfloat16, which NumPy stores as nothing": (
        lambda: zipped(x=samples().astype(ml_dtypes.bfloat16)), "expected numbers, found void16",
    ),
    "an empty folder": (lambda: folder_of(), "data: expected .*found a folder without any$"),
    "a folder of hidden files": (lambda: folder_of(".a.npy"), "found a folder without any$"),
    "a folder of other files": (lambda: folder_of("a.txt", "b"), r"without any \(2 other files not read\)"),
    "a folder of folders": (
        lambda: Path(saved("sub/a.npy", samples())).parent.rename(Path(folder_of(), "sub")).parent,
        r"without any \(1 subfolder not read\)",
    ),
    "a folder of both kinds": (lambda: folder_of("a.npy", "b.png"), "found both, b.png and a.npy"),
    "a folder with a damaged file": (lambda: broken(each_saved("data", samples()) + "/t.npy", b"") and "data", "t.npy"),
    "a folder with another shape": (lambda: each_saved("data", [samples(), samples()[:, 1:]]), "s1.npy: 'x': expected"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused_by_name(write: Callable[[], Any], says: str) -> None:
    refused(says, write(), inputs=[X])


def refused(says: str, data: Any, **options: Any) -> None:
    with pytest.raises(DataError, match=says) as caught:
        list(batches_of(data, **options).pairs())
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    assert re.search(r"expected|does nothing|takes pillow|leave|say what", sentence)


@pytest.mark.parametrize("batch_size", [7, 500])
@pytest.mark.parametrize("write", [zipped, compressed])
def test_checksums_are_compared_however_much_is_read_at_once(write: Callable[..., str], batch_size: int) -> None:
    refused("Bad CRC-32", another_checksum(write(x=samples(500))), inputs=[X], batch_size=batch_size)


def test_integers_are_not_made_narrower() -> None:
    refused("expected int32, found int64", zipped(x=np.arange(3)), inputs=[declared("N", dtype="int32")])


TAKES_IMAGES: dict[str, Any] = {"inputs": [X], "scale": (0.0, 1.0)}


def png(name: str = "a.png", **made: Any) -> str:
    return image(f"photos/{name}", pixels(1, **made))


def bits_16(mode: str) -> str:
    """Write a PNG file with 16 bits a channel, of which Pillow itself writes gray ones alone."""
    if mode == "gray":
        return image("photos/a.png", Image.fromarray(np.full((H, W), 999, np.uint16)))
    content = bytearray(Path(png(), "a.png").read_bytes())
    content[24] = 16
    broken("photos/a.png", bytes(content))
    return "photos"


def animated() -> str:
    frames = [Image.fromarray(frame) for frame in pixels(2)]
    return image("photos/a.png", frames[0], save_all=True, append_images=frames[1:])


def a_bomb() -> str:
    """Write the header of an image of a hundred thousand pixels each way."""
    path = Path(png(), "a.png")
    content = path.read_bytes()
    ihdr = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + content[24:29]
    crc = PngImagePlugin._crc32(ihdr).to_bytes(4, "big")
    path.write_bytes(content[:12] + ihdr + crc + content[33:])
    return "photos"


def transparent_palette() -> str:
    return image("photos/a.png", chequered(), transparency=0)


def gif_in_disguise() -> str:
    Path("photos").mkdir()
    Image.fromarray(pixels()[0]).save("photos/a.png", format="GIF")
    return "photos"


BAD_IMAGES: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "no scale": (png, {"inputs": [X]}, "0 to 255, and 'x' is float32; say what 0 and 255 become with --scale 0,1 or"),
    "no scale, nothing declared": (png, {}, "'input' is float32; say what"),
    "a scale for pixels": (png, {"inputs": [declared("N", 3, H, W, dtype="uint8")], "scale": (0, 1)}, "is uint8"),
    "a model of integers": (png, {"inputs": [declared("N", 3, H, W, dtype="int64")]}, "'x' is int64; give arrays"),
    "a model of another rank": (png, {"inputs": [declared("N", 3)], "scale": (0, 1)}, "'x' is Nx3; give arrays"),
    "a model of features": (png, {"inputs": [declared("N", 64, H, W)], "scale": (0, 1)}, "'x' is Nx64x4x5"),
    "a model of two inputs": (png, {"inputs": [X, Y], "scale": (0, 1)}, r"arrays for 2 inputs \(x, y\)"),
    "another size": (lambda: png(height=6), TAKES_IMAGES, r"expected 5x4 \(width x height\).*found 5x6; .*--size"),
    "a size that the model does not have": (png, TAKES_IMAGES | {"size": (4, 5)}, "--size 4x5: expected .* 5x4"),
    "several sizes": (
        lambda: png("b.png", height=6) and png(), {"inputs": [declared("N", 3, None, None)], "scale": (0, 1)},
        "b.png: expected samples of x as 3x4x5, as in photos/a.png, found 3x6x5, .*--size",
    ),
    "transparent pixels": (lambda: image("photos/a.png", with_alpha(9)), TAKES_IMAGES, "no transparent pixels"),
    "a transparent color": (transparent_palette, TAKES_IMAGES, "no transparent pixels"),
    "16 bits": (lambda: bits_16("RGB"), TAKES_IMAGES, "expected 8 bits a channel, found 16"),
    "16 bits, gray": (lambda: bits_16("gray"), TAKES_IMAGES, "expected 8 bits a channel, found 16"),
    "CMYK": (
        lambda: image("photos/a.jpg", Image.fromarray(pixels()[0]).convert("CMYK")), TAKES_IMAGES, "found CMYK"
    ),
    "several frames": (animated, TAKES_IMAGES, "found 2 frames"),
    "a bomb": (a_bomb, TAKES_IMAGES, "Pillow's limit against decompression bombs"),
    "another format": (gif_in_disguise, TAKES_IMAGES, "expected a PNG or JPEG image: cannot identify"),
    "empty": (lambda: folder_of("a.png") and broken("data/a.png", b"") and "data", TAKES_IMAGES, "a.png: expected"),
    "text": (lambda: broken("photos/a.jpg", b"words") and "photos", TAKES_IMAGES, "a.jpg: expected a PNG or JPEG"),
    "cut short": (
        lambda: cut_short(png(height=90, width=90) + "/a.png", 9000) and "photos",
        {"inputs": [declared("N", 3, None, None)], "scale": (0, 1)}, "a.png: expected a PNG or JPEG image",
    ),
    "flipped": (
        lambda: flipped(png(height=90, width=90) + "/a.png") and "photos",
        {"inputs": [declared("N", 3, None, None)], "scale": (0, 1)}, "a.png: expected a PNG or JPEG image",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "options", "says"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_are_refused_by_name(write: Callable[[], Any], options: dict[str, Any], says: str) -> None:
    refused(says, write(), **options)


BAD_PYTHON: dict[str, tuple[Any, str]] = {
    "a number": (3, "found int; give a path"),
    "a tuple": ((samples(), targets()), "found a tuple"),
    "no items": ([], "at least 1 sample, found 0"),
    "no samples": (samples(0), "at least 1 sample, found 0"),
    "no axis of samples": (samples()[0], "the first axis is samples"),
    "words": ([["a"]], "batch 0 of the data: expected arrays or tensors, .*found str"),
    "paths": (["a.png"], "found str"),
    "too many values": ([(samples(), targets(), targets())], r"1 input \(x\), with a target behind .*found 3 values"),
    "no values": ([()], "found 0 values"),
    "another name": ([{"a": samples(), "b": samples()}], "batch 0 of the data: .*the model takes x, found a, b"),
    "another shape": ([samples(), samples()[:, 1:]], "batch 1 of the data: 'x': expected shape Nx3x4x5, found 6x2x4x5"),
    "integers": ([samples().astype(int)], "batch 0 of the data: 'x': expected float32, found int64"),
    "a target of another shape": ([(samples(), samples())], "'y': expected shape Nx1x4x5"),
    "fewer targets": ([(samples(), targets(5))], "x has 6, y has 5"),
    "targets now and then": ([(samples()[:3], targets(3)), samples()[3:]], "expected the arrays of batch 0"),
    "objects": ([np.array([{}], object)], "batch 0 of the data: 'x': expected"),
    "sparse": ([torch.from_numpy(samples()).to_sparse()], "dense"),
}


@pytest.mark.parametrize(("data", "says"), BAD_PYTHON.values(), ids=BAD_PYTHON)
def test_bad_data_in_python_are_refused(data: Any, says: str) -> None:
    refused(says, data, inputs=[X], outputs=[Y], batch_size=8)


BAD_PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "fewer": (samples, lambda: targets(5), "found that the targets end after 5 samples"),
    "more": (lambda: samples(8), lambda: targets(9), "found that the inputs end after 8 samples"),
    "fewer, in files": (lambda: zipped(x=samples()), lambda: saved("t.npy", targets(5)), "t.npy: expected 6 targets"),
    "a file and a folder": (lambda: zipped(x=samples()), lambda: each_saved("t", targets()), "expected a file"),
    "a folder and a file": (lambda: each_saved("d", samples()), lambda: saved("t.npy", targets()), "expected a folder"),
    "a name missing": (
        lambda: each_saved("d", samples()), lambda: each_saved("t", targets(4)),
        r"d/s4.npy: expected a partner of the same name in t, found none \(nor for 1 others\)",
    ),
    "a name too many": (lambda: each_saved("d", samples(2)), lambda: each_saved("t", targets(3)), "t/s2.npy: expected"),
    "as many, other names": (
        lambda: each_saved("d", samples()), lambda: each_saved("t", targets(), "t{}.npy"), "d/s0.npy: expected"
    ),
    "a name twice": (
        lambda: each_saved("d", samples(1)),
        lambda: saved("t/s0.npy", targets(1)) and targets_npz("t/s0.npz") and "t", "found s0.np. too",
    ),
    "fewer in one file of a folder": (
        lambda: each_saved("d", [samples(2), samples(3)]), lambda: each_saved("t", [targets(3), targets(2)]),
        "t/s0.npy: expected 2 targets",
    ),
    "a target of a target": (lambda: [samples()], lambda: [(targets(), targets())], r"1 target \(y\), found 2 values"),
    "both ways": (lambda: [(samples(), targets())], targets, "leave one of them out"),
    "several arrays": (lambda: zipped(x=samples(), a=targets(), b=targets()), lambda: "data.npz", "gives y, found"),
    "another shape": (lambda: zipped(x=samples()), lambda: saved("t.npy", samples()), "t.npy: 'y': expected shape"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "wanted", "says"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_pairs_are_never_cut_to_the_shorter(given: Callable[[], Any], wanted: Callable[[], Any], says: str) -> None:
    refused(says, given(), inputs=[X], targets=wanted(), outputs=[Y], batch_size=8)


def test_a_dictated_batch_does_not_hide_that_counts_differ() -> None:
    refused("targets end after 5", samples(6), targets=targets(5), inputs=[declared(4, 3, H, W)], outputs=[Y])


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "another batch than the model's": (
        {"inputs": [declared(2, 3, H, W)], "batch_size": 4},
        "--batch-size 4: expected 2",
    ),
    "no batch": ({"inputs": [X], "batch_size": 0}, "--batch-size 0: expected 1 or more"),
    "a model of more than there is": ({"inputs": [declared(8, 3, H, W)]}, "at least 8 samples, found 6"),
    "a scale for floats": ({"inputs": [X], "scale": (0, 1)}, "--scale .* does nothing"),
    "a size for arrays": ({"inputs": [X], "size": (1, 1)}, "--size .* does nothing"),
    "a scalar": ({"inputs": [declared()]}, "found a scalar"),
    "two batch sizes": ({"inputs": [declared(1, 3, H, W), declared(2, name="s")]}, "x takes 1, s takes 2"),
}


@pytest.mark.parametrize(("options", "says"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    path = zipped(**{value.name: samples() for value in options["inputs"]})
    refused(says, path, **options)


@pytest.mark.parametrize("text", ["", "64", "64x", "x64", "64x64x3", "0x4", "-1x4", "ax4", "1.5x2"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="--size 256x192"):
        parse_size(text)
