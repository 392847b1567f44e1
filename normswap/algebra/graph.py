"""Graph: what the algebra sees of a model, whatever the framework: values by key, and the nodes that compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from normswap.layer import Array, Dim

__all__ = ["Condition", "Graph", "Key", "Node"]

Key: TypeAlias = tuple[tuple[str, ...], str]  # the path of the graph that defines a value, and its name there
Condition: TypeAlias = tuple[Key, bool]  # a value that decides between the branches of an If, and which way


@dataclass(frozen=True, eq=False)
class Node:
    """One operator of a graph.

    Attributes:
        op_type: Its name.
        domain: Of the name; empty for the default one.
        inputs: Keys of what it reads; None where an input is left out.
        outputs: Keys of what it computes; None where an output has no name.
        opset: Version of its operator set.
        position: Larger than that of every node whose outputs it reads.
        read_attributes: Reads its attributes by name.
        branches: For an If, the outputs of its branches when the condition holds and when it does not.
        conditions: What has to hold for it to be computed at all, outermost first.
    """

    op_type: str
    domain: str
    inputs: tuple[Key | None, ...]
    outputs: tuple[Key | None, ...]
    opset: int
    position: int
    read_attributes: Callable[[], Mapping[str, Any]]
    branches: Mapping[bool, tuple[Key, ...]] | None = None
    conditions: tuple[Condition, ...] = ()

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes by name, tensors as arrays."""
        return self.read_attributes()

    @property
    def kind(self) -> tuple[str, str]:
        """Its key in a table of rules."""
        return self.domain, self.op_type

    @property
    def output(self) -> Key | None:
        """Its first output."""
        return self.outputs[0] if self.outputs else None


class Graph(Protocol):
    """A graph in which every value has a key, subgraphs and calls of functions seen through."""

    def nodes(self, op_types: frozenset[str]) -> Iterable[Node]:
        """Return the nodes of some types, in the order of their positions."""
        ...

    def producer(self, key: Key) -> Node | None:
        """Return the node that computes a value; None for an input or a stored tensor."""
        ...

    def users(self, key: Key) -> Sequence[Node]:
        """Return the nodes that read a value; of a branch's output, the If."""
        ...

    def is_output(self, key: Key) -> bool:
        """Whether a value leaves the graph."""
        ...

    def is_input(self, key: Key) -> bool:
        """Whether a value is given by the caller of the model."""
        ...

    def is_constant(self, key: Key) -> bool:
        """Whether a value depends on no input."""
        ...

    def array(self, key: Key) -> Array | None:
        """Return a constant; None where it cannot be evaluated, or is larger than any parameter."""
        ...

    def dims(self, key: Key) -> tuple[Dim, ...] | None:
        """Return the lengths of a value's dimensions; None for an unknown rank.

        A string is an unknown length, the same wherever it stands; of None nothing is known.
        """
        ...

    def is_real(self, key: Key) -> bool:
        """Whether a value may be of a floating-point type."""
        ...
