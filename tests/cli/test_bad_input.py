"""Whatever is wrong ends in one clear line, exit code 2 and untouched folders; no stop leaves half a file."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from support import Refused
from support.models.small_models import LOWLIGHT, ONE_LAYER, RANK_TWO, built, tree

import normswap
from normswap.cli import main

UNKNOWN_OPERATOR = ONE_LAYER.replace("c = Conv <kernel_shape = [1, 1]>", "c = elsewhere.Twist").replace(
    '"" : 17', '"" : 17, "elsewhere" : 1'
)
NO_BATCHNORM = """
<ir_version: 8, opset_import: ["" : 17]>
plain (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }
"""
FUNCTION = '<domain: "d", opset_import: ["" : 17]> twice (x) => (y) { y = Add (x, x) }'
DATA = b"\1" * 96  # two tensors long, the first of which is used


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, temporary files below it, with one good model and good inputs."""
    work = tmp_path / "work"
    for path in (work, work / "temp", work / "sub", tmp_path / "other"):
        path.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(work / "temp"))
    onnx.save(built(ONE_LAYER), "good.onnx")
    np.savez("good.npz", x=image())
    np.save("good.npy", image())
    return work


def image() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def cut(path: str | Path, length: int) -> bytes:
    return Path(path).read_bytes()[:length]


def external(**entries: str | None) -> bytes:
    """The good model with its first tensor in a data file, that file, and entries of its place changed."""
    Path("model.data").write_bytes(DATA)
    model = built(ONE_LAYER)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    place: dict[str, str | None] = {"location": "model.data", "offset": "0", "length": "48", **entries}
    for key, value in place.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


def outside(link: str | None = None) -> str:
    """Put the data into another folder; return their absolute path, or a link in this folder that leads there."""
    path = Path.cwd().parent / "other" / "model.data"
    path.write_bytes(DATA)
    if link:
        Path(link).symlink_to(path)
    return link or str(path)


def with_tensor(edit: Callable[[onnx.TensorProto], object], index: int = 1) -> bytes:
    model = built(ONE_LAYER)
    edit(model.graph.initializer[index])
    return bytes(model.SerializeToString())


def nested(depth: int) -> bytes:
    """The good model with a tensor worth leaving on disk, in an If in an If in an If ...; protobuf writes none such."""

    def field(number: int, content: bytes) -> bytes:
        size, varint = len(content), bytearray([number << 3 | 2])
        while size >= 0x80:
            varint.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([*varint, size]) + content

    graph = field(5, onnx.numpy_helper.from_array(np.zeros(100_000, np.uint8), "t").SerializeToString())
    for _ in range(depth):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph)))
    return Path("good.onnx").read_bytes() + field(7, graph)


def with_a_name_that_is_no_text() -> bytes:
    return Path("good.onnx").read_bytes().replace(b"scale", b"sca\xffe")


def without_operator_set() -> bytes:
    model = built(ONE_LAYER)
    del model.opset_import[:]
    return bytes(model.SerializeToString())


def calling(names: Sequence[str], times: int = 1) -> bytes:
    """The good model with functions of these names, each of which calls the next one so many times over."""
    model = built(ONE_LAYER)
    for name, following in pairwise([*names, ""]):
        function = model.functions.add(name=name, domain="d", input=["v0"], output=[f"v{times}"])
        for domain, version in (("", 17), ("d", 1)):
            function.opset_import.add(domain=domain, version=version)
        for step in range(times):
            node = function.node.add(op_type=following or "Neg", input=[f"v{step}"], output=[f"v{step + 1}"])
            node.domain = "d" if following else ""
    model.opset_import.add(domain="d", version=1)
    model.graph.node.add(op_type=names[0], domain="d", input=["x"], output=["called"])
    return bytes(model.SerializeToString())


def in_a_ring(*names: str) -> bytes:
    model = onnx.ModelProto.FromString(calling(names))
    model.functions[-1].node[0].op_type, model.functions[-1].node[0].domain = names[0], "d"
    return bytes(model.SerializeToString())


BAD_MODELS: dict[str, tuple[Callable[[], bytes], str]] = {  # what the file holds, and what the line says of it
    "empty": (lambda: b"", "the file is empty"),
    "text": (lambda: b"This is the README of a model.\n" * 40, "expected an ONNX model"),
    "random bytes": (lambda: random.Random(0).randbytes(5000), "expected an ONNX model"),
    "zeros": (lambda: bytes(5000), "expected an ONNX model"),
    "cut in the first tag": (lambda: cut("good.onnx", 1), "cut short"),
    "cut before the graph": (lambda: cut("good.onnx", 2), "without a graph"),
    "cut in the graph": (lambda: cut("good.onnx", 60), "cut short"),
    "cut in a tensor": (lambda: cut("good.onnx", 200), "cut short"),
    "cut after the graph": (without_operator_set, "no operator set"),
    "cut in the last field": (lambda: cut("good.onnx", -1), "cut short"),
    "large, cut in the graph": (lambda: cut(LOWLIGHT, 2000), "cut short"),
    "large, cut in half": (lambda: cut(LOWLIGHT, 480_000), "cut short"),
    "large, cut at the end": (lambda: cut(LOWLIGHT, -1), "cut short"),
    "a tensor": (lambda: onnx.numpy_helper.from_array(image()).SerializeToString(), "without a graph"),
    "a named tensor": (lambda: onnx.numpy_helper.from_array(image(), "x").SerializeToString(), "expected an ONNX"),
    "a graph": (lambda: built(ONE_LAYER).graph.SerializeToString(), "without a graph"),
    "a function": (lambda: onnx.parser.parse_function(FUNCTION).SerializeToString(), "expected an ONNX model"),
    "graphs in graphs, too deep": (lambda: nested(40), "expected an ONNX model"),
    "graphs in graphs, without end": (lambda: nested(2000), "expected an ONNX model"),
    "names that are no text": (with_a_name_that_is_no_text, "not UTF-8"),
    "too few values": (lambda: with_tensor(lambda t: setattr(t, "raw_data", t.raw_data[:-4])), "'scale'"),
    "half a value": (lambda: with_tensor(lambda t: setattr(t, "raw_data", t.raw_data[:-1])), "'scale'"),
    "an unknown element type": (lambda: with_tensor(lambda t: setattr(t, "data_type", 99)), "'scale'"),
    "data missing": (lambda: external(location="lost.data"), "'lost.data' is missing"),
    "data too short": (lambda: external(offset="64"), "too short: 112 bytes are needed, it has 96"),
    "data in a folder": (lambda: external(location="sub"), "not a regular file"),
    "data nowhere": (lambda: external(location=None), "outside the model's folder"),
    "data one folder up": (lambda: external(location=f"../other/{Path(outside()).name}"), "outside the model's folder"),
    "data up and down": (lambda: external(location="sub/../../other/model.data"), "outside the model's folder"),
    "data at an absolute path": (lambda: external(location=outside()), "an absolute path"),
    "data at an absolute path, inside": (lambda: external(location=str(Path("model.data").resolve())), "absolute"),
    "data behind a link": (lambda: external(location=outside(link="link.data")), "outside the model's folder"),
    "data in an impossible file": (lambda: external(location="a\0b"), "outside the model's folder"),
    "offset no number": (lambda: external(offset="first"), "is not a number"),
    "offset empty": (lambda: external(offset=""), "is not a number"),
    "offset negative": (lambda: external(offset="-1"), "48 at -1"),
    "offset beyond any file": (lambda: external(offset="9" * 30), "too short"),
    "length no number": (lambda: external(length="0x30"), "is not a number"),
    "length negative": (lambda: external(length="-48"), "expected 48 bytes of data, the model says -48"),
    "length too small": (lambda: external(length="44"), "expected 48 bytes of data, the model says 44"),
    "length too large": (lambda: external(length="52"), "expected 48 bytes of data, the model says 52"),
    "two functions of one name": (lambda: calling(["f", "f"]), "two local functions are called d::f"),
    "a function that calls itself": (lambda: in_a_ring("f"), "local function d::f calls itself"),
    "functions that call one another": (lambda: in_a_ring("f", "g", "h"), "calls itself"),
    "functions that unfold": (lambda: calling([f"f{n}" for n in range(40)], times=2), "unfold into 2.2e+12 nodes"),
    "functions very deep": (lambda: calling([f"f{n}" for n in range(1000)]), "more than 64 deep"),
    "a forged mark of ours": (lambda: external(location="normswap:inline", offset="9999"), "too short"),
}
COMMANDS = {
    "inspect": "inspect bad.onnx",
    "convert": "convert bad.onnx --to instance -o out.onnx",
    "verify before": "verify bad.onnx good.onnx --to instance",
    "verify after": "verify good.onnx bad.onnx --to instance",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(("content", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_refused_by_name(
    content: Callable[[], bytes], says: str, command: str, refused: Refused
) -> None:
    Path("bad.onnx").write_bytes(content())
    line = refused(*command.split())
    assert line.startswith("normswap: bad.onnx: ")
    assert says in line


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(("name", "says"), [("lost.onnx", "No such file"), ("sub", "Is a directory")])
def test_what_is_no_file_is_refused(name: str, says: str, command: str, refused: Refused) -> None:
    assert says in refused(*command.replace("bad.onnx", name).split())


@pytest.mark.parametrize(
    "place", [{}, {"offset": None}, {"length": None}, {"location": "./model.data"}, {"offset": "48"}]
)
def test_data_inside_the_folder_are_read(place: dict[str, str | None]) -> None:
    Path("model.onnx").write_bytes(external(**place))
    assert main(["inspect", "model.onnx"]) == 0


def test_data_behind_a_link_inside_the_folder_are_read() -> None:
    Path("link.data").symlink_to("model.data")
    Path("model.onnx").write_bytes(external(location="link.data"))
    assert main(["convert", "model.onnx", "--to", "instance", "-o", "out.onnx"]) == 0


CONVERT_GOOD = "convert good.onnx --to instance -o out.onnx"
BAD_ARGUMENTS = {
    "nothing": ("", "Missing command"),
    "unknown command": ("transmute good.onnx", "transmute"),
    "no model": ("inspect", "MODEL"),
    "no second model": ("verify good.onnx --to instance", "AFTER"),
    "no target": ("convert good.onnx -o out.onnx", "--to"),
    "no output": ("convert good.onnx --to instance", "--output"),
    "unknown target": ("convert good.onnx --to instnace -o out.onnx", "the nearest is 'instance'"),
    "unknown target, verify": ("verify good.onnx good.onnx --to batch", "the nearest is 'batch-stat'"),
    "unknown target, inspect": ("inspect good.onnx --to populaton", "the nearest is 'population'"),
    "--only matches nothing": (f"{CONVERT_GOOD} --only enc*", "'enc*'"),
    "--skip matches nothing": ("inspect good.onnx --to instance --skip dec*", "'dec*'"),
    "--only without --to": ("inspect good.onnx --only y", "--to"),
    "--shape without =": (f"{CONVERT_GOOD} --shape 1x3x8x8", "NAME=1x3x256x256, found '1x3x8x8'"),
    "--shape without a name": (f"{CONVERT_GOOD} --shape =1x3", "found '=1x3'"),
    "--shape of words": (f"{CONVERT_GOOD} --shape x=1xthree", "found 'x=1xthree'"),
    "--shape with nothing": (f"{CONVERT_GOOD} --shape x=1x0x8x8", "found 'x=1x0x8x8'"),
    "--shape below nothing": (f"{CONVERT_GOOD} --shape x=1x-3x8x8", "found 'x=1x-3x8x8'"),
    "--shape of no input": (f"{CONVERT_GOOD} --shape z=1x3x8x8", "the model takes x"),
    "--shape that does not fit": (f"{CONVERT_GOOD} --shape x=1x5x8x8", "does not run"),
    "--shape beyond memory": (f"{CONVERT_GOOD} --shape x=99999999x3x99999999x8", "99999999x3x99999999x8"),
    "--shape beyond numbers": (f"{CONVERT_GOOD} --shape x={'9' * 30}x3x8x8", "9" * 30),
    "--seed no number": (f"{CONVERT_GOOD} --seed lucky", "lucky"),
    "--seed negative": (f"{CONVERT_GOOD} --seed -1", "-1"),
}


@pytest.mark.parametrize(("command", "says"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_named(command: str, says: str, refused: Refused) -> None:
    assert says in refused(*command.split())


def zipped(name: str, content: bytes) -> None:
    with zipfile.ZipFile("bad.npz", "w") as archive:
        archive.writestr(name, content)


def header(shape: tuple[int, ...]) -> bytes:
    """The beginning of an array of float32 of some shape, without its data."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def damaged() -> None:
    content = bytearray(Path("good.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    Path("bad.npz").write_bytes(content)


def marked(flag: int) -> None:
    """Say of the first member that it is encrypted, or patched: flags of the zip format."""
    content = bytearray(Path("good.npz").read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= flag
    Path("bad.npz").write_bytes(content)


BAD_INPUTS = {
    "missing": (lambda: None, "No such file"),
    "a folder": (lambda: Path("bad.npz").mkdir(), "directory"),
    "empty": (lambda: Path("bad.npz").touch(), "expected an .npz file"),
    "text": (lambda: Path("bad.npz").write_text("x = 1"), "expected an .npz file"),
    "a pickle": (lambda: Path("bad.npz").write_bytes(pickle.dumps({"x": image()})), "expected an .npz file"),
    "cut short": (lambda: Path("bad.npz").write_bytes(cut("good.npz", 900)), "expected an .npz file"),
    "one array": (lambda: Path("good.npy").rename("bad.npz"), "found one array"),
    "damaged": (damaged, "expected an .npz file"),
    "more than memory": (lambda: zipped("x.npy", header((10**13, 3))), "bad.npz: expected an .npz file of arrays"),
    "encrypted": (lambda: marked(1), "encrypted"),
    "patched": (lambda: marked(32), "patched data"),
    "pickled objects": (lambda: np.savez("bad.npz", x=np.array([{}], object)), "Object arrays"),
    "no arrays": (lambda: np.savez("bad.npz"), "the model takes x, found none"),
    "other names": (lambda: np.savez("bad.npz", image=image(), mask=image()), "the model takes x, found image, mask"),
    "another type": (lambda: np.savez("bad.npz", x=image().astype(np.int64)), "'x': expected float32, found int64"),
    "another shape": (lambda: np.savez("bad.npz", x=image()[:, :2]), "'x': expected shape Nx3x8x8, found 2x2x8x8"),
    "another rank": (lambda: np.savez("bad.npz", x=image()[0]), "found 3x8x8; the first axis is samples"),
    "a member that is no array": (lambda: zipped("x", b"hello"), "bad.npz: expected an .npz file"),
}


@pytest.mark.parametrize("command", [CONVERT_GOOD, "verify good.onnx good.onnx --to instance"])
@pytest.mark.parametrize(("write", "says"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_inputs_are_named(write: Callable[[], object], says: str, command: str, refused: Refused) -> None:
    write()
    assert says in refused(*command.split(), "--inputs", "bad.npz")


def test_good_inputs_are_taken() -> None:
    assert main([*CONVERT_GOOD.split(), "--inputs", "good.npz"]) == 0


UNSUITED = {
    "no BatchNorm": (NO_BATCHNORM, "", "no BatchNorm was found"),
    "a refused layer": (RANK_TWO, "", "--allow-refusals"),
    "nothing left once refusals are allowed": (RANK_TWO, "--allow-refusals", "its input has rank 2"),
    "nothing left once skipped": (ONE_LAYER, "--skip y", "not selected"),
}


@pytest.mark.parametrize("command", ["convert bad.onnx -o out.onnx", "verify bad.onnx good.onnx"])
@pytest.mark.parametrize(("text", "options", "says"), UNSUITED.values(), ids=UNSUITED)
def test_an_unsuited_model_is_refused_with_the_reason(
    text: str, options: str, says: str, command: str, refused: Refused
) -> None:
    onnx.save(built(text), "bad.onnx")
    assert says in refused(*command.split(), "--to", "instance", *options.split())


def test_an_operator_that_the_runtime_lacks_leaves_two_witnesses(refused: Refused) -> None:
    onnx.save(built(UNKNOWN_OPERATOR), "own.onnx")
    without = "--to instance --no-end-to-end"
    assert main(["inspect", "own.onnx"]) == 0
    assert main(f"convert own.onnx -o out.onnx {without}".split()) == 0
    assert main(f"verify own.onnx out.onnx {without}".split()) == 0
    for command in ("convert own.onnx -o again.onnx", "verify own.onnx out.onnx"):
        line = refused(*command.split(), "--to", "instance")
        assert "elsewhere:Twist" in line
        assert "--no-end-to-end" in line


def linked(name: str, target: str) -> str:
    Path(name).symlink_to(target)
    return name


def with_external_data() -> str:
    Path("model.onnx").write_bytes(external())
    return "model.onnx"


BAD_OUTPUTS: dict[str, tuple[Callable[[], str], Callable[[], str], str]] = {  # model, output, what the line says
    "exists": (lambda: "good.onnx", lambda: "good.npz", "replace it with --force"),
    "the model": (lambda: "good.onnx", lambda: "good.onnx", "never overwritten"),
    "the model, spelled otherwise": (lambda: "good.onnx", lambda: "sub/../good.onnx", "never overwritten"),
    "the model, as an absolute path": (lambda: "good.onnx", lambda: str(Path("good.onnx").resolve()), "never over"),
    "a link to the model": (lambda: "good.onnx", lambda: linked("ln.onnx", "good.onnx"), "never overwritten"),
    "the model of a link": (lambda: linked("ln.onnx", "good.onnx"), lambda: "good.onnx", "never overwritten"),
    "the model's data": (with_external_data, lambda: "model.data", "never overwritten"),
    "a folder": (lambda: "good.onnx", lambda: "sub", "is a folder"),
    "a folder, with a slash": (lambda: "good.onnx", lambda: "sub/", "is a folder"),
    "a folder that is missing": (lambda: "good.onnx", lambda: "none/", "is a folder"),
    "in a folder that is missing": (lambda: "good.onnx", lambda: "none/out.onnx", "folder none does not exist"),
    "in a file": (lambda: "good.onnx", lambda: "good.npz/out.onnx", "does not exist"),
    "empty": (lambda: "good.onnx", lambda: "", "is a folder"),
    "a name too long": (lambda: "good.onnx", lambda: "x" * 300, "cannot be written"),
}


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize(("model", "output", "says"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_a_bad_output_is_refused(
    model: Callable[[], str], output: Callable[[], str], says: str, force: tuple[str, ...], refused: Refused
) -> None:
    if force and "--force" in says:
        pytest.skip("this is what --force is for")
    line = refused("convert", model(), "--to", "instance", "-o", output(), *force)
    assert says in line or (not force and "replace it with --force" in line)


def test_a_folder_that_takes_no_files_is_refused(folder: Path, refused: Refused) -> None:
    closed = folder / "sub"
    closed.chmod(0o500)
    if os.access(closed, os.W_OK):  # permissions do not bind root
        closed = Path("/proc")
        if not closed.is_dir():
            pytest.skip("runs as root, and there is no folder that root cannot write to")
    assert "cannot be written" in refused(*CONVERT_GOOD.split()[:-1], str(closed / "out.onnx"))


def test_a_damaged_original_is_not_covered_up_by_force(refused: Refused) -> None:
    shutil.copy("good.onnx", "out.onnx")
    Path("bad.onnx").write_bytes(cut("good.onnx", 60))
    refused("convert", "bad.onnx", "--to", "instance", "-o", "out.onnx", "--force")


needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has neither these signals nor file-size limits")

CONVERT_SLOW = ("convert", "slow.onnx", "--to", "instance", "-o", "out.onnx", "--force")
PROCESS = """
import sys
if limit := int(sys.argv[1]):
    import resource  # what exceeds it fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
from normswap.cli import main
print("ready", flush=True)
sys.exit(main(sys.argv[2:]))
"""


def started(*argv: str, file_size: int = 0) -> subprocess.Popen[str]:
    """Start the command line as a process of its own and wait until it is past Python's imports."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(file_size), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": "temp", "ORT_DISABLE_TELEMETRY": "1"},  # else the runtime leaves a file there
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@needs_signals
@pytest.mark.parametrize("options", [(), ("--no-end-to-end",)], ids=["while running", "while writing"])
def test_a_full_disk_is_one_line_and_no_litter(folder: Path, options: tuple[str, ...]) -> None:
    Path("out.onnx").write_text("old")
    before = tree(folder)
    command = ("convert", str(LOWLIGHT), "--to", "instance", "-o", "out.onnx", "--force", *options)
    process = started(*command, file_size=300_000)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(r"normswap: out.onnx: cannot be written: File too large\n", error)
    assert tree(folder) == before


def write_slow_model(layers: int, megabytes: int) -> None:
    """Write a model that takes a while: to probe, for its layers, and to copy, for a tensor inside and one beside."""
    steps = ["x", *(f"v{index}" for index in range(layers - 1)), "y"]
    nodes = "\n".join(f"{y} = BatchNormalization ({x}, s, s, s, s)" for x, y in pairwise(steps))
    model = built(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        slow (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) <float[4] s> {{ {nodes} }}"""
    )
    values = np.random.default_rng(0).bytes(megabytes << 20)
    for name in ("inside", "beside"):
        tensor = model.graph.initializer.add(name=name, data_type=onnx.TensorProto.UINT8, dims=[len(values)])
        tensor.raw_data = values
    onnx.external_data_helper.set_external_data(tensor, "slow.data")
    tensor.ClearField("raw_data")
    Path("slow.data").write_bytes(values)
    onnx.save(model, "slow.onnx")


@needs_signals
def test_an_interrupt_leaves_nothing_behind(folder: Path) -> None:
    write_slow_model(layers=60, megabytes=8)
    Path("out.onnx").write_text("old")
    before = tree(folder)
    for delay in (0.03, 0.06, 0.1, 0.2, 0.4, 0.6):  # not before Python has entered main
        process = started(*CONVERT_SLOW)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        if process.returncode == 0:  # Python may drop an interrupt that comes within a destructor, or it came late
            assert {layer.role for layer in normswap.find("out.onnx")} == set()
            assert not list(folder.glob(".normswap-*"))
            return
        assert (process.returncode, error.strip()) == (130, "normswap: interrupted; no file was left half-written")
        assert tree(folder) == before


ENDLESS = """
<ir_version: 8, opset_import: ["" : 17]>
endless (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y, float e)
<int64 trips = {9223372036854775807}, bool on = {1}, float zero = {0}, float[3] s> {
  y = BatchNormalization (x, s, s, s, s)
  e = Loop (trips, on, zero) <body = b (int64 i, bool c, float v) => (bool d, float w) { d = Identity (c) w = Neg (v) }>
}
"""


def test_a_model_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    onnx.save(built(ENDLESS), "bad.onnx")
    monkeypatch.setenv("NORMSWAP_TIME_LIMIT", "0.5")
    command = "convert bad.onnx --to instance -o out.onnx"
    assert "not done after 0.5 seconds" in refused(*command.split())
    assert main([*command.split(), "--no-end-to-end"]) == 0
    monkeypatch.setenv("NORMSWAP_TIME_LIMIT", "soon")
    assert "expected a number of seconds above 0, found 'soon'" in refused(*command.replace("out.", "o.").split())


def test_a_model_with_loops_that_end_has_time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(built(ENDLESS.replace("9223372036854775807", "10")), "good.onnx")
    monkeypatch.setenv("NORMSWAP_TIME_LIMIT", "60")
    assert main(CONVERT_GOOD.split()) == 0
