"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and tests run side by side
ROOT = Path(__file__).parent.parent
