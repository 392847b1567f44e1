"""Documents of JSON, place by place, for schemas that are to turn down what is changed anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

__all__ = ["Place", "at", "changed", "general", "places"]

Place: TypeAlias = tuple[str | int, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every value of a document."""
    yield place
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*place, key))


def general(place: Place) -> Place:
    """The same place of every element of a list."""
    return tuple("*" if isinstance(key, int) else key for key in place)


def at(document: Any, place: Place) -> Any:
    """What stands at a place."""
    for key in place:
        document = document[key]
    return document


def changed(document: Any, place: Place, *value: Any) -> Any:
    """A document with another value at a place, or with none there."""
    other = copy.deepcopy(document)
    parent = at(other, place[:-1])
    if value:
        parent[place[-1]] = value[0]
    else:
        del parent[place[-1]]
    return other
