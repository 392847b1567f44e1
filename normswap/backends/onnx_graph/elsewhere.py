"""Run a graph in another runtime than ONNX Runtime: as the file that this runtime would be given."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  # so that NumPy knows bfloat16 by name
import numpy as np

from normswap import runtimes
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.save import write_model
from normswap.backends.onnx_graph.graph.shapes import spelled
from normswap.backends.values import Run
from normswap.errors import CannotRunError
from normswap.layer import Array

__all__ = ["run_in"]


def run_in(runtime: str, model: OnnxModel, arrays: Mapping[str, Array]) -> Run:
    """Write a model aside and run it in one of normswap.runtimes.RUNTIMES.

    Outputs that the runtime gives in a wider type than the graph declares are rounded to that, and a note says so.

    Raises:
        CannotRunError: If the runtime cannot run it.
    """
    declared = {value.name: spelled(value.type) for value in model.proto.graph.output}
    if any(array.dtype.name == "bfloat16" for array in arrays.values()):
        raise CannotRunError(f"{runtime} takes no bfloat16 inputs from NumPy")
    with tempfile.TemporaryDirectory(prefix="normswap-") as folder:
        path = write_model(model, Path(folder) / "model.onnx")
        outputs, described = runtimes.infer(runtime, path, arrays, list(declared))
    notes = [described]
    for name, dtype in declared.items():
        found = outputs[name].dtype
        if dtype is None or found.name == dtype or found.kind != "f" or np.dtype(dtype).kind not in "fV":
            continue
        if found.itemsize > np.dtype(dtype).itemsize:
            outputs[name] = outputs[name].astype(dtype)
            notes.append(f"{runtime} gives {name} in {found.name}, where the model declares {dtype}; it was rounded")
    return Run(outputs, notes=tuple(notes))
