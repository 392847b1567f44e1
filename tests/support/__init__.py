"""What the tests share: where the project is, models, oracles, readers, hostile inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
Refused: TypeAlias = Callable[..., str]
