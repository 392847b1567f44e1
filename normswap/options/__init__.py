"""Options: every option of ``plan``, ``convert`` and ``verify``, declared once.

A field has a type, a default, a help text and, unless it is for Python alone, a kind. Every other list of options is
derived from the fields: the keyword arguments of the library (``takes`` makes a class of arguments the signature of a
function), the options of the command line and the keys of the settings file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from normswap.data import Scale
from normswap.norms import Keywords, Norm, make_norm
from normswap.options.declared import Kind, Option, argument, option, option_of, spelled
from normswap.options.signature import takes
from normswap.report import Progress

__all__ = [
    "Comparison",
    "Converting",
    "Images",
    "Kind",
    "Option",
    "Options",
    "Planning",
    "Scope",
    "Tolerance",
    "Verifying",
    "argument",
    "keywords_of",
    "option",
    "option_of",
    "spelled",
    "takes",
]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tolerance:
    """The margins of end-to-end comparison.

    Attributes:
        runs: How many runs with rounding-size perturbations measure the noise floor.
        most_runs: How many are made before a difference counts as one: where the model rounds or quantizes, a
            perturbation seldom flips a decision, and much when it does.
        margin: How many times the measured noise floor is allowed. Rounding in a kernel over n elements
            may exceed one unit by about sqrt(n) to n; perturbations are of ``noise`` units.
        noise: Size of the relative perturbation of each planned layer's input, in units of roundoff.
        last_place: Units of roundoff of the largest output that are always allowed.
    """

    runs: int = 3
    most_runs: int = 27
    margin: float = 16.0
    noise: float = 4.0
    last_place: float = 16.0


@dataclass(frozen=True, kw_only=True)
class Images:
    """How images become the inputs of a model."""

    scale: str | Scale | None = option(
        None,
        "The values of black and white in images for the model.",
        "scale",
        python="A key of normswap.data.SCALES, or a pair such as (0.0, 1.0). For inputs that are images.",
    )
    size: str | tuple[int, int] | None = option(
        None, "Resize images to this size.", "size", python="A width and a height.", metavar="WxH"
    )


@dataclass(frozen=True, kw_only=True)
class Scope(Images):
    """How a model is looked at, and which of its layers are chosen."""

    inputs: Any = option(
        None,
        "End-to-end inputs: an .npz or .npy file, or a folder of those or of images; generated if not given.",
        "path",
        python=(
            "They may be what normswap.diagnose takes, of which the first batch is taken: an .npz or .npy file, a "
            "folder of those or of images, or a loader. They may also be an array, arrays by name, and for a torch "
            "model a tensor, a tuple of positional arguments or a mapping of named ones. An nn.Module is run on them "
            "once, on a copy, to see its layers and their shapes. Generated inputs of an nn.Module have the shape that "
            "its first layer suggests; the report names what was used."
        ),
        metavar="DATA",
    )
    shapes: Shapes | None = option(
        None,
        "Shape of a generated input, by input name.",
        "shapes",
        spelled="--shape",
        metavar="NAME=1x3x256x256",
    )
    only: Sequence[str] = option((), "Layers to convert, by glob; all if not given.", "names")
    skip: Sequence[str] = option((), "Layers to leave as they are, by glob.", "names")
    drop_statistics: bool = option(
        False, "Drop outputs of the model that carry nothing but running statistics of converted layers.", "flag"
    )


@dataclass(frozen=True, kw_only=True)
class Options(Scope):
    """What ``convert`` and ``verify`` share."""

    allow_refusals: bool = option(False, "Leave layers that the target cannot take as they are.", "flag")
    seed: int = option(0, "Seed of generated inputs and of probes.", "whole")
    end_to_end: bool = option(True, "Run the whole model too (default), or not.", "flag")
    tolerance: Tolerance | None = option(
        None,
        "How many times its noise floor an output may be off end to end, 16 by default.",
        "margin",
        python="Structure and probes have no such freedom.",
        spelled="",
    )
    runtimes: Sequence[str] = option(
        (), "Another runtime to run the converted .onnx file in.", "names", spelled="--runtime"
    )
    progress: Progress | None = option(None, "Called with (stage, done, total) as the work goes on.")


@dataclass(frozen=True, kw_only=True)
class Comparison(Options):
    """What ``verify`` takes besides the models and the target."""

    may_differ: Sequence[str] = option((), "Converted layers whose own checks may fail, by glob.", "names")


@dataclass(frozen=True, kw_only=True)
class _Form(Keywords):
    for_runtime: str | None = option(
        None,
        "Write each layer of an ONNX model in the form that this runtime computes correctly and fastest, and run the "
        "result there.",
        "text",
        spelled="--for",
        metavar="RUNTIME",
    )


def keywords_of(options: Scope) -> dict[str, Any]:
    """Return options, or the arguments that they are a part of, as keyword arguments."""
    return {declared.name: getattr(options, declared.name) for declared in fields(options)}


_MODEL = "path of an .onnx or .pt2 file, an onnx.ModelProto, an nn.Module or an ExportedProgram"
_TO = "The target: a key of normswap.NORMS, with its parameters as further arguments, or a Norm."


class _Targeted:
    to: str | Norm

    @property
    def norm(self) -> Norm:
        """The target."""
        return make_norm(self.to)


@dataclass(frozen=True)
class _OneModel(_Targeted):
    model: Any = field(metadata=argument(f"The model: {_MODEL}. It is never changed without ``in_place``."))
    to: str | Norm = field(metadata=argument(_TO))


@dataclass(frozen=True)
class _TwoModels(_Targeted):
    before: Any = field(metadata=argument(f"The original: {_MODEL}."))
    after: Any = field(metadata=argument("Its conversion, of the same framework or another one."))
    to: str | Norm = field(metadata=argument(_TO))


@dataclass(frozen=True, kw_only=True)
class Planning(Scope, _Form, _OneModel):
    """Arguments of ``normswap.plan``."""


@dataclass(frozen=True, kw_only=True)
class Converting(Options, _Form, _OneModel):
    """Arguments of ``normswap.convert``."""

    output: str | os.PathLike[str] | None = option(
        None,
        "A file to write the converted model to, if the report is ok. For an nn.Module the suffix selects weights "
        "(.pth, .safetensors) or an export (.onnx, .pt2), which is verified too.",
    )
    force: bool = option(False, "Replace an existing ``output``.")
    in_place: bool = option(
        False,
        "Convert the caller's own nn.Module if the report of the copy is ok: the outer module stays the same object, "
        "and every weight and bias the same Parameter, as optimizers and tied modules know them.",
    )


@dataclass(frozen=True, kw_only=True)
class Verifying(Comparison, Keywords, _TwoModels):
    """Arguments of ``normswap.verify`` and ``normswap.testing.assert_equivalent``."""
