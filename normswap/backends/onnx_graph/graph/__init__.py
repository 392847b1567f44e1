"""An ONNX graph that stays on disk: its code is read, its large tensors are not."""

from __future__ import annotations

__all__: list[str] = []
