"""What both torch backends need: tensors as arrays, inputs and outputs by name, calls of batch_norm, the witness."""

from __future__ import annotations

__all__: list[str] = []
