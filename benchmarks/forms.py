"""Time every form of every target in each runtime, as ratios to eval-mode BatchNormalization there.

A model is one layer. Forms take turns, A B C A B C ..., on two threads, and each ratio is the median of the pairs. The
results are the figures of normswap/runtimes/table.py. Each runtime is timed in a process of its own.

    python benchmarks/forms.py [--rounds 15] [--runtime onnxruntime ...] [--dtype float32 float16]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh

from normswap.backends import onnx_graph
from normswap.norms import NORMS, Blend, Group
from normswap.plan import Choice, Plan

SHAPES = [(1, 64, 128, 128), (8, 64, 64, 64), (8, 256, 16, 16)]
RUNTIMES = ("onnxruntime", "openvino", "opencv", "mnn")
BASE = "BatchNormalization"


def model_of(shape: tuple[int, ...], dtype: str) -> onnx.ModelProto:
    """Make one eval-mode BatchNormalization of a fixed shape."""
    rng = np.random.default_rng(0)
    element = oh.np_dtype_to_tensor_dtype(np.dtype(dtype))
    channels = shape[1]
    tensors = [
        onnx.numpy_helper.from_array(rng.uniform(0.5, 1.5, channels).astype(dtype), name)
        for name in ("scale", "bias", "mean", "var")
    ]
    node = oh.make_node(BASE, ["x", "scale", "bias", "mean", "var"], ["y"])
    values = [oh.make_tensor_value_info(name, element, shape) for name in ("x", "y")]
    graph = oh.make_graph([node], "one layer", values[:1], values[1:], tensors)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8)


def forms_of(shape: tuple[int, ...], dtype: str, folder: Path) -> dict[str, Path]:
    """Write a file for each form of each target; the eval-mode layer itself is BASE."""
    model = onnx_graph.load(model_of(shape, dtype))
    (layer,) = onnx_graph.find(model)
    files: dict[str, Path] = {}
    for norm in (*(NORMS | {"group": Group(32)}).values(), Blend(16, "sample")):
        for form in norm.forms.values():
            if form.takes(layer):
                plan = Plan(norm, (layer,), forms={layer.name: Choice(form.name, "timed")})
                files[f"{norm.name}: {form.name}"] = folder / f"{len(files)}.onnx"
                onnx.save(onnx_graph.rewrite(model, plan).proto, files[f"{norm.name}: {form.name}"])
    return files


def onnxruntime_call(path: Path, x: Any) -> Callable[[], Any]:
    """Load a file into ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def openvino_call(path: Path, x: Any) -> Callable[[], Any]:
    """Load a file into OpenVINO."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    return lambda: compiled({"x": x})


def opencv_call(path: Path, x: Any) -> Callable[[], Any]:
    """Load a file into OpenCV."""
    import cv2

    net = cv2.dnn.readNetFromONNX(str(path))

    def call() -> Any:
        net.setInput(x, "x")
        return net.forward(["y"])

    return call


def mnn_call(path: Path, x: Any) -> Callable[[], Any]:
    """Convert a file and load it into MNN."""
    import _tools
    from MNN import expr, nn

    converted = path.with_suffix(".mnn")
    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "b"]
    )
    manager = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 2},))
    module = nn.load_module_from_file(str(converted), ["x"], ["y"], runtime_manager=manager)
    x = x.astype(np.float32)
    return lambda: module.forward([expr.const(x, list(x.shape), expr.NCHW)])[0].read()


CALLS = {"onnxruntime": onnxruntime_call, "openvino": openvino_call, "opencv": opencv_call, "mnn": mnn_call}


def seconds(call: Callable[[], Any], least: float = 0.01) -> float:
    """Time one call, averaged over ``least`` seconds."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < least:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def ratios(runtime: str, dtype: str, rounds: int) -> dict[str, list[float]]:
    """Return the ratio of each form on each of SHAPES."""
    found: dict[str, list[float]] = {}
    base = f"population: {BASE}"
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
            calls = {}
            for name, path in forms_of(shape, dtype, Path(folder)).items():
                try:
                    call = CALLS[runtime](path, x)
                    seconds(call)
                except Exception as error:  # whatever a runtime raises at what it does not take
                    print(f"{runtime} refuses {name} in {dtype}: {type(error).__name__}", file=sys.stderr)
                    continue
                calls[name] = call
            turns = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
            for name in calls:
                found.setdefault(name, []).append(statistics.median(turn[name] / turn[base] for turn in turns))
    return found


def main() -> None:
    """Print a line for each runtime, type and form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float16"), default=("float32", "float16"))
    given = parser.parse_args()
    if len(given.runtime) > 1:
        for runtime in given.runtime:
            options = ["--rounds", str(given.rounds), "--runtime", runtime, "--dtype", *given.dtype]
            command = [sys.executable, __file__, *options]
            shown = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
            # MNN tells much while it converts.
            print("\n".join(line for line in shown.splitlines() if line.startswith(f"{runtime} ")), flush=True)
        return
    for dtype in given.dtype:
        for name, found in ratios(given.runtime[0], dtype, given.rounds).items():
            print(f"{given.runtime[0]:<12} {dtype}  {name:<44} {' · '.join(f'{ratio:.2f}' for ratio in found)}")


if __name__ == "__main__":
    main()
