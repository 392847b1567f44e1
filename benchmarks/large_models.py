"""Compare converting 1.36 GB of weights, in external data and in one file, with copying them.

Each row is a pair of whole processes run in turn, A B A B ..., with the ratio of each pair; peak memory is the
operating system's maximum resident set of the finished process. The model is 36 times Conv(1024, 1024, 3 x 3) and
BatchNorm, with random weights.

    python benchmarks/large_models.py [--pairs 5] [--convs 36] [--folder DIR]

The folder needs about five times 1.4 GB.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh

CHANNELS = 1024
LOAD_AND_SAVE = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"


@dataclass(frozen=True)
class Cost:
    """What one finished process took.

    Attributes:
        seconds: Wall time.
        peak: Maximum resident set, in MB of 10^6 bytes.
    """

    seconds: float
    peak: float


def build(folder: Path, convs: int) -> tuple[Path, Path]:
    """Write the model with external data and as one file; return both paths."""
    rng = np.random.default_rng(0)
    nodes, tensors, value = [], [], "x"
    for index in range(convs):
        weight = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32) / np.float32(CHANNELS)
        tensors.append(onnx.numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(oh.make_node("Conv", [value, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        names = [f"{word}{index}" for word in ("scale", "bias", "mean", "var")]
        for name in names:
            parameter = rng.uniform(0.5, 1.5, CHANNELS).astype(np.float32)
            tensors.append(onnx.numpy_helper.from_array(parameter, name))
        nodes.append(oh.make_node("BatchNormalization", [f"c{index}", *names], [f"b{index}"]))
        value = f"b{index}"
    shape: list[str | int | None] = ["batch", CHANNELS, "height", "width"]
    graph = oh.make_graph(
        nodes,
        "large",
        [oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [oh.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape)],
        tensors,
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=9)
    single = folder / "single.onnx"
    external = folder / "external.onnx"
    onnx.save(model, single)
    onnx.save(model, external, save_as_external_data=True, location="external.onnx.data", size_threshold=0)
    return external, single


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end and return its time and memory; everything written before is on disk first."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} failed with status {status}")
    return Cost(seconds, usage.ru_maxrss * 1024 / 1e6)


def compare(label: str, ours: Sequence[str], theirs: Sequence[str], output: Path, pairs: int) -> None:
    """Run both commands in turn and print the medians and the ratios of the pairs."""
    costs: list[tuple[Cost, Cost]] = []
    for index in range(pairs + 1):  # the first pair warms the page cache and is not counted
        pair = []
        for command in (ours, theirs):
            pair.append(run(command))
            for written in output.parent.glob(f"{output.name}*"):
                written.unlink()
        if index:
            costs.append((pair[0], pair[1]))
    ratios = sorted(a.seconds / b.seconds for a, b in costs)
    a = [statistics.median(getattr(pair[0], name) for pair in costs) for name in ("seconds", "peak")]
    b = [statistics.median(getattr(pair[1], name) for pair in costs) for name in ("seconds", "peak")]
    print(
        f"{label:<52} {a[0]:6.2f} s {a[1]:6.0f} MB   vs {b[0]:6.2f} s {b[1]:6.0f} MB   "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def main() -> None:
    """Build the models, run every pair, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--convs", type=int, default=36)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="large-models-", dir=options.folder))
    try:
        # In a process of its own, so that the ones measured do not inherit its memory.
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            external, single = pool.submit(build, folder, options.convs).result()
        output = folder / "out.onnx"
        convert = [sys.executable, "-m", "normswap", "convert", "--no-end-to-end", "-o", str(output), "--to"]
        copy = ["cp", f"{external}.data", str(output)]
        copy_single = ["cp", str(single), str(output)]
        reference = [sys.executable, "-c", LOAD_AND_SAVE, str(single), str(output)]
        for target in ("instance", "batch-stat"):
            compare(
                f"external data, --to {target}, vs cp", [*convert, target, str(external)], copy, output, options.pairs
            )
        for target in ("instance", "batch-stat"):
            command = [*convert, target, str(single)]
            compare(f"one file, --to {target}, vs onnx.load + save", command, reference, output, options.pairs)
        compare(
            "one file, --to instance, vs cp", [*convert, "instance", str(single)], copy_single, output, options.pairs
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
