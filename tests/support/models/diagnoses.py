"""Diagnoses of the shipped models, made once for all tests that look at them."""

from __future__ import annotations

from functools import cache

import normswap
from normswap import Diagnosis
from support import ROOT

__all__ = ["diagnosis"]


@cache
def diagnosis(model: str, *, targets: bool = True) -> Diagnosis:
    data = ROOT / f"fixtures/{model}_images.npz"
    return normswap.diagnose(ROOT / f"fixtures/{model}.onnx", data, targets=data if targets else None)
