"""OpenVINO on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino

from normswap.layer import Array

__all__ = ["described", "infer"]


def described() -> str:
    """Name the version and the settings."""
    version = openvino.__version__.split("-")[0]
    return (
        f"openvino {version} was run with INFERENCE_PRECISION_HINT=f32; without it, it computes in bfloat16 or float16 "
        "on processors that have them, so set it where you deploy too"
    )


def infer(model: str, feed: Mapping[str, Array], outputs: Sequence[str], folder: Path) -> list[Any]:
    """Run a file once; outputs in the order asked for, which is the graph's."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = compiled(dict(feed))
    return [values[compiled.output(index)] for index in range(len(outputs))]
