"""What a command found, as people and machines read it."""

from __future__ import annotations

__all__: list[str] = []
