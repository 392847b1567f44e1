"""Convert the BatchNorm layers of a model, and prove that the result computes what was meant."""

from normswap.api import Conversion, convert, find, plan, save, verify
from normswap.backends.torch.checkpoint import convert_state_dict
from normswap.diagnosis import Diagnosis, diagnose
from normswap.errors import (
    CannotRunError,
    DataError,
    ModelReadError,
    ModelWriteError,
    NormswapError,
    NothingToConvertError,
    RefusedLayersError,
    ReportError,
    SelectionError,
    SettingsError,
    TimeLimitError,
    UnsupportedModelError,
)
from normswap.layer import NormLayer, Refusal
from normswap.norms import NORMS, Norm
from normswap.options import Tolerance
from normswap.plan import Kept, Plan
from normswap.recalibration import Moved, Recalibration, recalibrate
from normswap.report import Check, Report
from normswap.version import __version__ as __version__

__all__ = [
    "NORMS",
    "CannotRunError",
    "Check",
    "Conversion",
    "DataError",
    "Diagnosis",
    "Kept",
    "ModelReadError",
    "ModelWriteError",
    "Moved",
    "Norm",
    "NormLayer",
    "NormswapError",
    "NothingToConvertError",
    "Plan",
    "Recalibration",
    "Refusal",
    "RefusedLayersError",
    "Report",
    "ReportError",
    "SelectionError",
    "SettingsError",
    "TimeLimitError",
    "Tolerance",
    "UnsupportedModelError",
    "convert",
    "convert_state_dict",
    "diagnose",
    "find",
    "plan",
    "recalibrate",
    "save",
    "verify",
]
