"""What is installed, for tests that need more than the package does."""

from __future__ import annotations

import importlib.util
import os

import pytest

from normswap.runtimes import RUNTIMES

__all__ = ["needs"]


def needs(runtime: str) -> None:
    """Skip where a runtime is not installed, which it is wherever the whole suite has to pass."""
    if runtime in RUNTIMES and importlib.util.find_spec(RUNTIMES[runtime]) is None:
        assert not os.environ.get("CI"), f"{runtime} is missing: pip install 'normswap[dev]'"
        pytest.skip(f"{runtime} is not installed: pip install 'normswap[{runtime}]'")
