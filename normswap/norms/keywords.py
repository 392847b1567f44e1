"""The parameters of all targets as keyword arguments, for type checkers.

Nothing depends on them when normswap runs: what a target takes, it declares itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normswap.norms.blend import Over

__all__ = ["Keywords"]


@dataclass(frozen=True, kw_only=True)
class Keywords:
    """Base of what takes a target by its name, so that ``convert(model, "blend", prior=16)`` is checked."""

    if TYPE_CHECKING:
        prior: float | None = None
        over: Over | None = None
