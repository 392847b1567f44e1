"""What several tests share."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support import Refused
from support.models.small_models import tree

from normswap.cli import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and tests run side by side


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line in a test's folder, hold it to one line of trouble and no file, and return that line."""

    def run(*argv: str) -> str:
        before = tree(folder.parent)
        capsys.readouterr()
        code = main(argv)
        shown = capsys.readouterr()
        assert (code, shown.out) == (2, "")
        assert re.fullmatch(r"normswap: [^\n]+\n", shown.err), "not one line"
        assert "internal error" not in shown.err
        assert "Traceback" not in shown.err
        assert tree(folder.parent) == before, "something was written"
        return shown.err

    return run
