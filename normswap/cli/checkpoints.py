"""Checkpoints on the command line: state dicts, converted and compared without their models, which are never run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from normswap.backends.torch.checkpoint import (
    compare_checkpoints,
    plan_of,
    read_checkpoint,
    without_statistics,
    write_checkpoint,
)
from normswap.cli.source import is_checkpoint
from normswap.errors import SelectionError
from normswap.files import as_write_error, check_writable, folder_beside
from normswap.norms import Norm
from normswap.report import Report

__all__ = ["compare", "convert"]


def compare(before: str, after: str, norm: Norm, *, only: Sequence[str], skip: Sequence[str]) -> Report:
    """Hold a converted checkpoint to its original."""
    original = read_checkpoint(before)
    return compare_checkpoints(original, read_checkpoint(after), plan_of(original, norm, only=only, skip=skip))


def convert(
    path: str, norm: Norm, output: str, *, only: Sequence[str], skip: Sequence[str], force: bool
) -> tuple[Report, Path | None]:
    """Convert a checkpoint; what was written is read back and compared before it is put in place."""
    if not is_checkpoint(output):
        raise SelectionError(
            f"{output}: a checkpoint becomes a checkpoint (.pth, .safetensors); an export needs the model's code: "
            "package.module:factory --weights"
        )
    before = read_checkpoint(path)
    planned = plan_of(before, norm, only=only, skip=skip)
    target = Path(output)
    check_writable(target, [Path(path)], force=force)
    with as_write_error(target), folder_beside(target) as folder:
        aside = Path(folder) / target.name
        write_checkpoint(without_statistics(before, planned), aside)
        report = compare_checkpoints(before, read_checkpoint(aside), planned)
        if report.ok:
            os.replace(aside, target)
    return report, target if report.ok else None
