"""Statistics of what a model's layers are given: collected while it runs, merged, compared with those stored."""

from __future__ import annotations

__all__: list[str] = []
