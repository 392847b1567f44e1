"""Measure the cost of a diagnosis, as a ratio to plain inference: one pass in each mode that it runs.

One process. In each round every plain pass and then ``normswap.diagnose`` go over the same samples, with targets. The
ratio includes everything: starting sessions, collection, comparing, recalibrating and its verification, and the search
for the fewest layers. The output is the median of the rounds with the least and the most in brackets, and the growth
of the peak of traced memory from a quarter of the samples to all of them, in an untimed run.

    python benchmarks/diagnose.py [MODEL.onnx ...] [--samples 1000] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from collect import EXTENT, FIXTURE, ROOT, in_mode

import normswap
from normswap.backends import onnx_graph, save
from normswap.backends.onnx_graph.inputs import signature
from normswap.backends.torch import module as torch_module
from normswap.backends.torch.factory import build
from normswap.layer import Array

BATCH = 8
MODES = ("eval", "eval", "instance", "batch-stat")  # the recalibrated model is one in eval mode
Batches = Callable[[], Iterator[tuple[Any, Any]]]


def seconds(call: Callable[[], Any]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(
    model: Any, plain: dict[str, Callable[[Any], Any]], batches: Callable[[int], Batches], samples: int, rounds: int
) -> str:
    """Return what is shown of one model.

    Args:
        model: What is diagnosed.
        plain: Plain inference of one batch, by mode.
        batches: Gives so many batches, of inputs and targets.
        samples: Of a pass.
        rounds: That count; one more warms up.
    """
    count = samples // len(next(batches(1)())[0])

    def passes(mode: str) -> None:
        for inputs, _ in batches(count)():
            plain[mode](inputs)

    def peak(count: int) -> float:
        tracemalloc.start()
        normswap.diagnose(model, batches(count))
        found = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        return found

    found = []
    for number in range(rounds + 1):
        plainly = sum(seconds(partial(passes, mode)) for mode in MODES if mode in plain)
        ratio = seconds(lambda: normswap.diagnose(model, batches(count))) / plainly
        if number:
            found.append(ratio)
    few, many = peak(count // 4), peak(count)
    shown = f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"
    return f"{shown} of {plainly:.1f} s  memory {few:.1f} MB, {many - few:+.2f} MB for four times the samples"


def of_onnx(path: Path, samples: int, rounds: int) -> str:
    """Measure in ONNX Runtime, plain inference in sessions with its defaults."""
    model = onnx_graph.load(path)
    extent = 64 if path == FIXTURE else EXTENT
    (value,) = signature(model)
    first, *_ = value.dims or (BATCH,)
    batch = first if isinstance(first, int) else BATCH
    dims = [batch, *(dim if isinstance(dim, int) else extent for dim in (value.dims or ())[1:])]
    x = np.random.default_rng(0).standard_normal(dims).astype(np.float32)
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in set(MODES):
            file = f"{folder}/{mode}.onnx"
            save(onnx_graph, in_mode(onnx_graph.prepare(model), mode), file)
            sessions[mode] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    y = sessions["eval"].run(None, {value.name: x})[0]

    def batches(count: int) -> Batches:
        return lambda: ((x, y) for _ in range(count))

    def run(session: onnxruntime.InferenceSession, x: Array) -> Any:
        return session.run(None, {value.name: x})

    modes = [mode for mode in sessions if batch > 1 or mode != "batch-stat"]
    return measured(path, {mode: partial(run, sessions[mode]) for mode in modes}, batches, samples, rounds)


def of_module(module: torch.nn.Module, extent: int, samples: int, rounds: int) -> str:
    """Measure in torch."""
    x = torch.randn((BATCH, 3, extent, extent), generator=torch.Generator().manual_seed(0))
    modules = {mode: in_mode(torch_module.load(module), mode).module for mode in set(MODES)}

    def run(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y: torch.Tensor = module(x)
            return y

    y = run(module, x)

    def batches(count: int) -> Batches:
        return lambda: ((x, y) for _ in range(count))

    return measured(module, {mode: partial(run, modules[mode]) for mode in MODES}, batches, samples, rounds)


@click.command(help=__doc__.partition("\n")[0])
@click.argument("models", type=click.Path(path_type=Path), nargs=-1)
@click.option("--samples", default=1000, show_default=True, help="Samples per pass.")
@click.option("--rounds", default=3, show_default=True, help="That count.")
@click.option("--threads", default=2, show_default=True, help="Threads of torch; ONNX Runtime takes all cores.")
def main(models: tuple[Path, ...], samples: int, rounds: int, threads: int) -> None:
    """Measure the fixture in both runtimes, and the models given."""
    torch.set_num_threads(threads)
    print(f"{samples} samples, {threads} threads; diagnose against a plain pass for each mode", flush=True)
    for path in (FIXTURE, *models):
        print(f"onnxruntime {path.stem:<28} {of_onnx(path, samples, rounds)}", flush=True)
    generator = build("fixtures.lowlight:Generator", ROOT / "fixtures" / "lowlight.safetensors").eval()
    print(f"torch       {'lowlight':<28} {of_module(generator, 64, samples, rounds)}", flush=True)


if __name__ == "__main__":
    main()
