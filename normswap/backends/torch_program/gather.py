"""Gatherer: an exported program is refused, since the module that it was made from can be looked into instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normswap.backends import Run, SampleStatistics
from normswap.backends.torch_program.model import ProgramModel
from normswap.errors import UnsupportedModelError
from normswap.plan import Plan

__all__ = ["Gatherer"]


class Gatherer:
    """What would tell the inputs of a program's layers.

    Attributes:
        unobserved: Why a layer's input cannot be seen, by its name.

    Raises:
        UnsupportedModelError: Always.
    """

    unobserved: Mapping[str, str]

    def __init__(self, model: ProgramModel, plan: Plan, names: Sequence[str]) -> None:
        raise UnsupportedModelError(
            f"{model.path or 'ExportedProgram'}: the inputs of an exported program's layers are not looked into; "
            "give the nn.Module that it was made from, or an .onnx export"
        )

    def __call__(self, arrays: Mapping[str, Any]) -> tuple[Run, dict[str, list[SampleStatistics]]]:
        """Never reached."""
        raise NotImplementedError
