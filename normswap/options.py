"""Options: every option of ``plan``, ``convert`` and ``verify``, declared once.

A field has a type, a default, a help text and, unless it is for Python alone, a kind. Every other list of options is
derived from the fields: the keyword arguments of the library (``takes`` makes a class of arguments the signature of a
function), the options of the command line and the keys of the settings file.
"""

from __future__ import annotations

import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, cast, get_type_hints

from normswap.data import Scale
from normswap.norms import Norm, all_parameters, make_norm
from normswap.norms.keywords import Keywords
from normswap.report import Progress

__all__ = ["Comparison", "Converting", "Kind", "Option", "Options", "Planning", "Scope", "Tolerance",
           "Verifying", "argument", "keywords_of", "option", "option_of", "spelled", "takes"]  # fmt: skip


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


P = ParamSpec("P")
Arguments = TypeVar("Arguments")
Result = TypeVar("Result")
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Kind = Literal[
    "text", "target", "model", "path", "names", "flag", "whole", "count", "share", "margin", "shapes", "scale", "size"
]


@dataclass(frozen=True)
class Option:
    """An option as people meet it.

    Attributes:
        help: What it does.
        kind: How it is read from the command line and the settings file; None if it is for Python alone.
        python: What the documentation of the library adds to ``help``.
        spelled: Its name on the command line; None for that of the field, "" if it has none.
        metavar: Stands for its value in the help of the command line.
    """

    help: str
    kind: Kind | None = None
    python: str = ""
    spelled: str | None = None
    metavar: str | None = None


def option(default: Any, help: str, kind: Kind | None = None, **more: Any) -> Any:  # noqa: A002  # as click has it
    """Declare a field with a default; ``more`` are further attributes of Option."""
    return field(default=default, metadata=argument(help, kind, **more))


def argument(help: str, kind: Kind | None = None, **more: Any) -> dict[str, Any]:  # noqa: A002  # likewise
    """Return the metadata of a field without default, which type checkers want to see as ``field(metadata=...)``."""
    return {"option": Option(help, kind, **more)}


def option_of(declared: Field[Any]) -> Option:
    """Return how people meet a field."""
    found: Option = declared.metadata["option"]
    return found


def spelled(declared: Field[Any]) -> str:
    """Return the name of an option on the command line; "" if it is not there."""
    found = option_of(declared)
    if found.spelled is not None or found.kind is None:
        return found.spelled or ""
    name = declared.name.replace("_", "-")
    return f"--{name}/--no-{name}" if declared.default is True else f"--{name}"


@dataclass(frozen=True, kw_only=True)
class Scope:
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
    scale: str | Scale | None = option(
        None,
        "The values of black and white in images for the model.",
        "scale",
        python="A key of normswap.data.SCALES, or a pair such as (0.0, 1.0). For inputs that are images.",
    )
    size: str | tuple[int, int] | None = option(
        None, "Resize images to this size.", "size", python="A width and a height.", metavar="WxH"
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


@dataclass(frozen=True)
class _OneModel:
    model: Any = field(metadata=argument(f"The model: {_MODEL}. It is never changed without ``in_place``."))
    to: str | Norm = field(metadata=argument(_TO))

    @property
    def norm(self) -> Norm:
        """The target."""
        return make_norm(self.to)


@dataclass(frozen=True)
class _TwoModels:
    before: Any = field(metadata=argument(f"The original: {_MODEL}."))
    after: Any = field(metadata=argument("Its conversion, of the same framework or another one."))
    to: str | Norm = field(metadata=argument(_TO))

    @property
    def norm(self) -> Norm:
        """The target."""
        return make_norm(self.to)


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


def takes(arguments: Callable[P, Arguments]) -> Callable[[Callable[[Arguments], Result]], Callable[P, Result]]:
    """Decorate a function of a class of arguments so that it is called with the fields of the class.

    Type checkers, ``inspect`` and ``help`` see the fields as the signature, and the docstring lists them. Parameters of
    a target, which are keyword arguments as well, become part of the Norm ``to``.
    """
    cls = cast(type, arguments)

    def decorate(function: Callable[[Arguments], Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            __tracebackhide__ = True  # pytest shows the caller's line
            try:
                given = _signature(cls).bind(*args, **kwargs).arguments
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            if "to" in given:
                parameters = {name: given.pop(name) for name in all_parameters() if name in given}
                given["to"] = make_norm(given["to"], **parameters)
            return function(cls(**given))

        call.__signature__ = _signature(cls)  # type: ignore[attr-defined]  # inspect reads it
        call.__doc__ = _documented(function.__doc__ or "", cls)
        return call

    return decorate


def _signature(arguments: type) -> inspect.Signature:
    hints = get_type_hints(arguments)
    own = [one.replace(annotation=hints[one.name]) for one in inspect.signature(arguments).parameters.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    of_targets = [
        inspect.Parameter(name, keyword, default=None, annotation=parameter.type | None)
        for name, parameter in all_parameters().items()
        if "to" in hints
    ]
    first = next(index for index, parameter in enumerate(own) if parameter.kind is keyword)
    return inspect.Signature([*own[:first], *of_targets, *own[first:]])


def _documented(doc: str, arguments: type) -> str:
    """Insert the arguments into a docstring, before its first section."""
    documented = {declared.name: option_of(declared) for declared in fields(arguments)}
    texts = {name: f"{option.help} {option.python}" for name, option in documented.items()}
    texts |= {name: parameter.help for name, parameter in all_parameters().items()}
    lines = []
    for name in _signature(arguments).parameters:
        lines += textwrap.wrap(f"{name}: {texts[name]}", 116, initial_indent=4 * " ", subsequent_indent=8 * " ")
    before, *sections = inspect.cleandoc(doc).partition("\n\nR")
    return "\n".join([before, "", "Args:", *lines]) + "".join(sections)
