"""What several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def lowlight() -> Path:
    """The shipped generator in eval mode."""
    return ROOT / "fixtures" / "lowlight.onnx"
