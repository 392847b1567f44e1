"""Checkpoints: state dicts of BatchNorm models turned into those of the converted ones, without building a model."""

from __future__ import annotations

from normswap.backends.torch.checkpoint.compare import compare_checkpoints
from normswap.backends.torch.checkpoint.convert import convert_state_dict, layers_in, plan_of, without_statistics
from normswap.backends.torch.checkpoint.files import SUFFIXES, read_checkpoint, write_checkpoint

__all__ = [
    "SUFFIXES",
    "compare_checkpoints",
    "convert_state_dict",
    "layers_in",
    "plan_of",
    "read_checkpoint",
    "without_statistics",
    "write_checkpoint",
]
