"""OpenCV's dnn module, with the engine that it picks by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from normswap.layer import Array

__all__ = ["described", "infer"]


def described() -> str:
    """Name the version and the settings."""
    return f"opencv {cv2.__version__} was run by cv2.dnn.readNetFromONNX with its default engine"


def infer(model: str, feed: Mapping[str, Array], outputs: Sequence[str], folder: Path) -> list[Any]:
    """Run a file once; outputs in the order asked for."""
    net = cv2.dnn.readNetFromONNX(model)
    for name, array in feed.items():
        net.setInput(array, name)
    return list(net.forward(list(outputs)))
