"""MNN on the CPU, converted from ONNX by its own converter, in high precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The native converter itself: the package MNN.tools, which wraps it, runs pip to install a reporter when it is imported
# and sends what was converted to its makers (MNN/tools/utils/log.py in MNN 3.6.1).
import _tools
import MNN
from MNN import expr, nn

from normswap.layer import Array

__all__ = ["described", "infer"]


def described() -> str:
    """Name the version and the settings."""
    return f"mnn {MNN.version()} was run on the CPU with precision=high, from the file that its converter makes"


def infer(model: str, feed: Mapping[str, Array], outputs: Sequence[str], folder: Path) -> list[Any]:
    """Convert a file, run it once; outputs in the order asked for."""
    converted = folder / "model.mnn"
    options = {"-f": "ONNX", "--modelFile": model, "--MNNModel": str(converted), "--bizCode": "normswap"}
    _tools.mnnconvert(["mnnconvert", *(word for option in options.items() for word in option)])
    if not converted.exists():
        raise ValueError("its converter does not take it")
    manager = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 1},))
    module = nn.load_module_from_file(str(converted), list(feed), list(outputs), runtime_manager=manager)
    found = module.forward([_variable(array) for array in feed.values()])
    return [_array(value) for value in (found if isinstance(found, (list, tuple)) else [found])]


def _variable(array: Array) -> Any:
    """Take an array as MNN does: half precision is float32 outside, and of integers there is one kind."""
    kind, as_type = (expr.float, "float32") if array.dtype.kind == "f" else (expr.int, "int32")
    return expr.const(array.astype(as_type), list(array.shape), expr.NCHW, kind)


def _array(value: Any) -> Any:
    # Inside, four channels lie side by side; NCHW is the order that ONNX has.
    return expr.convert(value, expr.NCHW).read() if value.data_format == expr.NC4HW4 else value.read()
