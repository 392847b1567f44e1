"""``inputs``: verify and convert take what diagnose takes, for every kind of model, and use the first batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from support.models.small_models import ONE_LAYER, built

import normswap
from normswap.backends import backend_for
from normswap.backends.inputs import InputSource
from normswap.cli import main
from normswap.errors import CannotRunError, DataError

RNG = np.random.default_rng(5)
SAMPLES = RNG.standard_normal((11, 3, 8, 8)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (3, 8, 8, 3), np.uint8)


class Net(torch.nn.Module):
    """A convolution and a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.norm(self.conv(x)))


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    module = Net().eval()
    with torch.no_grad():
        for tensor in module.norm.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return module


def program() -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(net(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"x": {0: batch}})


def fixed(samples: int) -> onnx.ModelProto:
    """The graph, for one number of samples."""
    model = built(ONE_LAYER)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = samples
    return model


MODELS: dict[str, Callable[[], Any]] = {"graph": lambda: built(ONE_LAYER), "module": net, "program": program}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("all.npy", SAMPLES)
    np.savez("other_name.npz", samples=SAMPLES)
    np.savez("pixels.npz", x=(SAMPLES > 0).astype(np.uint8) * 200)
    Path("arrays").mkdir()
    Path("images").mkdir()
    for number, sample in enumerate(SAMPLES[:3]):
        np.save(f"arrays/{number}.npy", sample[None])
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(f"images/{number}.png")


def first_batch(given: Any, model: Any, **reading: Any) -> tuple[np.ndarray[Any, Any], str]:
    backend = backend_for(model)
    loaded = backend.load(model)
    (feed,) = InputSource(given, **reading).feeds(backend, loaded)
    (array,) = backend.inputs(loaded).to_arrays(feed.arrays).values()
    return array, feed.source


LABELLED: Any = [(sample, 0) for sample in SAMPLES]
IMAGES = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
GIVEN: dict[str, tuple[Callable[[], Any], Any]] = {
    "an .npy file": (lambda: "all.npy", SAMPLES[:8]),
    "an .npz file of another name": (lambda: "other_name.npz", None),
    "a folder of arrays": (lambda: Path("arrays"), SAMPLES[:3]),
    "a list of batches as a loader": (lambda: iter([SAMPLES[:2], SAMPLES[2:4]]), SAMPLES[:2]),
    "a loader with labels": (
        lambda: torch.utils.data.DataLoader(LABELLED, batch_size=4), SAMPLES[:4]
    ),
    "a function that returns an iterator": (lambda: lambda: iter([SAMPLES[:3]]), SAMPLES[:3]),
    "an array": (lambda: SAMPLES, SAMPLES),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_given_is_read_alike_for_every_kind_of_model(kind: str, name: str) -> None:
    make, expected = GIVEN[name]
    found, source = first_batch(make(), MODELS[kind]())
    # A graph and a program declare how many samples they take, a module takes an .npz file as it is.
    expected = (SAMPLES if kind == "module" else SAMPLES[:8]) if expected is None else expected
    np.testing.assert_array_equal(found, expected)
    assert source.startswith("given")


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "reading",
    [{"scale": "0,1"}, {"scale": (0.0, 1.0)}, {"scale": "0,1", "size": "8x8"}, {"scale": "0,1", "size": (8, 8)}],
)
def test_images_are_scaled(kind: str, reading: dict[str, Any]) -> None:
    found, source = first_batch("images", MODELS[kind](), **reading)
    np.testing.assert_allclose(found, IMAGES, rtol=1e-6)
    assert "3 images, 0 and 255 as 0 and 1" in source


def test_the_batch_has_the_size_that_the_model_takes() -> None:
    for given in ("all.npy", "other_name.npz", Path("arrays")):
        found, source = first_batch(given, fixed(2))
        np.testing.assert_array_equal(found, SAMPLES[:2])
        assert "of which the first 2 samples" in source


def test_pixels_in_an_npz_file_are_scaled() -> None:
    found, _ = first_batch("pixels.npz", built(ONE_LAYER), scale="-1,1")
    assert set(np.unique(found)) == {np.float32(-1), np.float32(200 / 255 * 2 - 1)}
    with pytest.raises(DataError, match="say what 0 and 255 become with --scale"):
        first_batch("pixels.npz", built(ONE_LAYER))


def test_floats_of_another_width_are_cast_and_the_report_says_so() -> None:
    np.savez("wide.npz", x=SAMPLES.astype(np.float64))
    found, source = first_batch("wide.npz", built(ONE_LAYER))
    assert found.dtype == np.float32
    assert source.endswith("x: float64 was cast to float32, which the model takes")


def test_data_that_can_be_read_once_serve_every_model_of_a_run() -> None:
    drawn: list[int] = []

    def batches() -> Iterator[Any]:
        for start in range(0, 8, 2):
            drawn.append(start)
            yield SAMPLES[start : start + 2]

    source, backend = InputSource(batches()), backend_for(net())
    first, second = (source.feeds(backend, backend.load(net()))[0].arrays["x"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert drawn == [0]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("given", ["arrays", "all.npy", "images"])
def test_convert_and_verify_run_on_data(kind: str, given: str) -> None:
    reading: dict[str, Any] = {"inputs": given, "scale": "0,1" if given == "images" else None}
    model = MODELS[kind]()
    conversion = normswap.convert(model, "instance", **reading)
    assert conversion.report.ok, conversion.report.to_text()
    assert conversion.report.inputs.startswith(f"given: {given}")
    report = normswap.verify(model, conversion.model, "instance", **reading)
    assert report.ok and report.inputs == conversion.report.inputs
    wrong = normswap.convert(model, "batch-stat").model
    report = normswap.verify(model, wrong, "instance", **reading)
    assert "end to end" in {check.witness for check in report.failed}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--inputs", "images"], "say what 0 and 255 become with --scale"),
        (["--inputs", "images", "--scale", "0,1", "--size", "9x9"], "expected the width and height that 'x' has"),
        (["--scale", "0,1"], "--scale is for images and does nothing without them"),
        (["--inputs", "arrays", "--scale", "0,1"], "does nothing with these"),
        (["--inputs", "nowhere"], "found nothing of this name"),
        (["--inputs", "all.npy", "--size", "8x8"], "--size is for images and does nothing with these data"),
    ],
)
def test_data_that_do_not_fit_are_named(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(built(ONE_LAYER), "good.onnx")
    assert main(["convert", "good.onnx", "--to", "instance", "-o", "out.onnx", *options]) == 2
    assert words in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def test_the_command_line_takes_folders() -> None:
    onnx.save(built(ONE_LAYER), "good.onnx")
    images = ["--inputs", "images", "--scale", "0,1"]
    assert main(["convert", "good.onnx", "--to", "instance", "-o", "out.onnx", *images]) == 0
    assert main(["verify", "good.onnx", "out.onnx", "--to", "instance", *images]) == 0
    assert main(["verify", "good.onnx", "out.onnx", "--to", "batch-stat", *images]) == 1
    assert main(["verify", "good.onnx", "out.onnx", "--to", "instance", "--inputs", "arrays"]) == 0


def test_arrays_by_name_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CannotRunError, match="expected float32, found float64"):
        normswap.convert(built(ONE_LAYER), "instance", inputs={"x": SAMPLES.astype(np.float64)})
