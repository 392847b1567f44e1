"""Measure the cost of collecting statistics, as ratios to plain inference on the same inputs.

One process. In each round plain inference and collecting run in turn, and the ratio is that of the pair. The output is
the median of the rounds with the least and the most in brackets, against plain inference in the mode of collection, and
against plain inference of the model as it is, whose BatchNorms ONNX Runtime folds into convolutions. Collecting is all
of ``Collection.add``: checking the batch, running the graph, merging the moments.

    python benchmarks/collect.py [MODEL.onnx ...] [--pairs 15] [--threads 2]
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from normswap.backends import backend_for, onnx_graph
from normswap.backends.onnx_graph.inputs import signature
from normswap.backends.onnx_graph.runtime import Session
from normswap.backends.torch import module as torch_module
from normswap.backends.torch.factory import build
from normswap.plan import make_plan
from normswap.statistics.collect import MODES, Collection

ROOT = Path(__file__).parent.parent
FIXTURE = ROOT / "fixtures" / "lowlight.onnx"
EXTENT = 224  # of images, where a model leaves it open
Timed = Callable[[], Any]


def ratios(plain: Sequence[Timed], collection: Timed, pairs: int) -> list[list[float]]:
    """Return the ratios of one to each of the others, one per round."""

    def seconds(call: Timed, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    calls = max(1, round(0.1 / min(seconds(collection, 1) for _ in range(3))))
    found: list[list[float]] = [[] for _ in plain]
    for number in range(pairs + 1):
        for index, call in enumerate(plain):
            before = seconds(call, calls)
            ratio = seconds(collection, calls) / before
            if number:  # the first round warms up
                found[index].append(ratio)
    return found


def shown(values: Sequence[float]) -> str:
    """Return median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def in_mode(model: Any, mode: str) -> Any:
    """Return the model with all layers that take the mode switched to it."""
    backend = backend_for(model)
    planned = make_plan(MODES[mode], backend.find(model))
    return backend.rewrite(model, planned) if planned.layers else model


def of_onnx(path: Path, mode: str, batch: int, pairs: int) -> list[list[float]] | None:
    """Measure in ONNX Runtime; None where the model takes no such batch."""
    model = onnx_graph.prepare(onnx_graph.load(path))
    feed = {}
    for value in signature(model):
        dims = value.dims or ()
        if isinstance(dims[0], int) and dims[0] != batch:
            return None
        extent = 64 if path == FIXTURE else EXTENT
        shape = [batch, *(dim if isinstance(dim, int) else extent for dim in dims[1:])]
        feed[value.name] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sessions = [Session(known, optimize=True) for known in (in_mode(model, mode), model)]
    collection = Collection(model, mode)
    collection.add(feed)
    return ratios([partial(session.run, feed) for session in sessions], lambda: collection.add(feed), pairs)


def of_module(module: torch.nn.Module, shape: tuple[int, ...], mode: str, pairs: int) -> list[list[float]]:
    """Measure in torch."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    switched = in_mode(torch_module.load(module), mode).module
    collection = Collection(module, mode)
    collection.add(x)

    def plain(module: torch.nn.Module) -> None:
        with torch.no_grad():
            module(x)

    return ratios([lambda: plain(switched), lambda: plain(module)], lambda: collection.add(x), pairs)


@click.command(help=__doc__.partition("\n")[0])
@click.argument("models", type=click.Path(path_type=Path), nargs=-1)
@click.option("--pairs", default=15, show_default=True, help="Rounds that count.")
@click.option("--threads", default=2, show_default=True, help="Threads of torch; ONNX Runtime takes all cores.")
def main(models: tuple[Path, ...], pairs: int, threads: int) -> None:
    """Measure the fixture, a ResNet-50 if there is one, and the models given."""
    torch.set_num_threads(threads)
    corpus = Path(os.environ.get("NORMSWAP_CORPUS", "nowhere")) / "onnx_light_resnet50.onnx"
    files = [FIXTURE, *([corpus] if corpus.exists() else []), *models]
    print(f"{threads} threads, {pairs} pairs; against plain inference in that mode, and of the model as it is")
    for path in files:
        for batch in (1, 8):
            for mode in MODES:
                found = of_onnx(path, mode, batch, pairs)
                if found is not None:
                    print(f"onnxruntime {path.stem:<28} batch {batch}  {mode:<10} {'  '.join(map(shown, found))}")
    generator = build("fixtures.lowlight:Generator", ROOT / "fixtures" / "lowlight.safetensors").eval()
    networks = {"lowlight": (generator, 64)}
    try:
        from pytorchcv.model_provider import get_model

        networks["resnet50"] = (get_model("resnet50").eval(), EXTENT)
    except ImportError:
        pass
    for name, (module, extent) in networks.items():
        for batch in (1, 8):
            for mode in MODES:
                measured = of_module(module, (batch, 3, extent, extent), mode, pairs)
                print(f"torch       {name:<28} batch {batch}  {mode:<10} {'  '.join(map(shown, measured))}", flush=True)


if __name__ == "__main__":
    main()
