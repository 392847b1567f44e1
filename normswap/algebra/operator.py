"""Operator: what a rule is given, whatever the framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normswap.algebra.errors import UnreadableError
from normswap.algebra.values import Axes, Sizes, Tensor, Value

__all__ = ["Operator"]


@dataclass(frozen=True)
class Operator:
    """One operator with its inputs read.

    Attributes:
        op_type: Its name.
        attributes: By name.
        inputs: Their values; None where one is left out.
        opset: Version of the operator set.
        axes: What is known of axes.
        outputs: How many outputs are in use.
    """

    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[Value | None, ...]
    opset: int
    axes: Axes
    outputs: int = 1
    domain: str = field(default="")

    def value(self, index: int) -> Value | None:
        """Return an input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int = 0) -> Tensor:
        """Return an input as a tensor."""
        return self.axes.tensor(self.value(index))

    def integers(self, name: str, index: int) -> tuple[int, ...] | None:
        """Return whole numbers that are an attribute or, in later versions, an input; None where they are left out."""
        if name in self.attributes:
            given = self.attributes[name]
            return (given,) if isinstance(given, int) else tuple(given)
        return None if self.value(index) is None else self.axes.integers(self.value(index))

    def attribute(self, name: str, default: float) -> Any:
        """Return a number that is an attribute."""
        return self.attributes.get(name, default)

    def refuse_sizes(self) -> None:
        """Raise where an input is several sizes at once, which this operator has no rule for."""
        if any(isinstance(value, Sizes) and len(value.entries) != 1 for value in self.inputs):
            raise UnreadableError(f"{self.op_type} of sizes")

    def refuse_sizes_of_data(self) -> None:
        """Raise where the first input is sizes."""
        if isinstance(self.value(0), Sizes):
            raise UnreadableError(f"{self.op_type} of sizes")
