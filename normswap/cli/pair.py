"""Pair: two models and how one is held to the other, as a command line or a settings file gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normswap.api import convert, verify
from normswap.errors import SelectionError, sentence_of
from normswap.norms import make_norm
from normswap.norms.blend import Over
from normswap.norms.rounding import Tolerance
from normswap.report import Progress, Report
from normswap.reports.outcome import Outcome

__all__ = ["Pair", "is_checkpoint", "outcome_of", "raise_for_idle", "raise_for_idle_with_checkpoints", "source_of"]


@dataclass(frozen=True)
class Pair:
    """An original and what claims to be its conversion.

    Attributes:
        before: The original: an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors).
        after: Its conversion; for a factory also the weights that its model was converted to.
        to: Name of the target.
        name: What people call the pair.
        weights: State dict for ``before`` as a factory.
        after_weights: State dict for ``after`` as a factory.
        only: Globs of the layers that are to be converted; all if there are none.
        skip: Globs of the layers that are to stay as they are.
        may_differ: Globs of converted layers that may differ all the same.
        allow_refusals: Whether layers that the target cannot take may stay as they are.
        drop_statistics: Whether outputs that carry nothing but running statistics are gone.
        inputs: An .npz file of end-to-end inputs, None for generated ones.
        shapes: Shapes of generated inputs, by input name.
        seed: Of generated inputs and probes.
        end_to_end: Whether the whole model is run too.
        runtimes: Where else ``after``, an .onnx file, is run end to end.
        tolerance: How many times its noise floor an output may be off end to end, a factor without unit; None for the
            default, ``Tolerance.margin``. The floor is measured, in units of that output: how far the original itself
            moves when the inputs of its layers move by rounding. Structure and probes have no such freedom.
        prior: Of the target ``blend``: as how many samples the stored statistics count beside those of the input.
        over: Of ``blend``: whether these are of each ``sample``, or of the ``batch``; None for the default.
    """

    before: str
    after: str
    to: str
    name: str = ""
    weights: str | None = None
    after_weights: str | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    may_differ: tuple[str, ...] = ()
    allow_refusals: bool = False
    drop_statistics: bool = False
    inputs: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0
    end_to_end: bool = True
    runtimes: tuple[str, ...] = ()
    tolerance: float | None = None
    prior: float | None = None
    over: Over | None = None

    def options(self) -> dict[str, Any]:
        """Return what ``verify`` and ``convert`` both take by name."""
        names = ("only", "skip", "allow_refusals", "drop_statistics", "inputs", "shapes", "seed", "end_to_end")
        tolerance = None if self.tolerance is None else Tolerance(margin=self.tolerance)
        given = {name: getattr(self, name) for name in (*names, "runtimes", "prior", "over")}
        return {**given, "tolerance": tolerance}


def outcome_of(pair: Pair, progress: Progress | None = None) -> Outcome:
    """Hold a pair to its target; trouble with it becomes part of the outcome, whatever it is.

    A factory is the user's code, and is run.
    """
    report, trouble = None, ""
    try:
        report = _report(pair, progress)
    except BrokenPipeError:  # nobody is left to be told
        raise
    except Exception as error:
        trouble = sentence_of(error)
    return Outcome(pair.name or pair.after, pair.before, pair.after, pair.to, report, trouble)


def _report(pair: Pair, progress: Progress | None) -> Report:
    raise_for_idle(pair.options())
    before = source_of(pair.before, pair.weights)
    after = source_of(pair.after, pair.after_weights, "--after-weights")
    if is_checkpoint(before):
        return _checkpoints(pair, after)
    if is_checkpoint(after):
        after = _converted_with(before, after, pair)
    return verify(before, after, pair.to, may_differ=pair.may_differ, progress=progress, **pair.options())


def source_of(model: str, weights: str | None, option: str = "--weights") -> Any:
    """Return what the library takes: a path as it is, or the module that a factory builds.

    Raises:
        SelectionError: If a file is given weights.
        ModelReadError: If the factory or its weights cannot be read.
    """
    from normswap.backends.torch.factory import build, is_factory

    if is_factory(model):
        return build(model, weights)
    if weights is not None:
        raise SelectionError(f"{option} is for package.module:factory; the file {model} has its weights in it")
    return model


def is_checkpoint(model: Any) -> bool:
    """Whether a model is named by a file that holds weights alone."""
    from normswap.backends.torch.checkpoint import SUFFIXES

    return isinstance(model, str) and os.path.splitext(model)[1] in SUFFIXES


def raise_for_idle(given: Mapping[str, Any]) -> None:
    """Refuse options that would do nothing beside others, as their user would never know.

    Raises:
        SelectionError: If any of them is given.
    """
    if given["shapes"] and given["inputs"]:
        raise SelectionError("--shape is for generated inputs and does nothing with --inputs; leave one of them out")
    for name, said in (("inputs", "--inputs"), ("shapes", "--shape"), ("runtimes", "--runtime")):
        if given[name] and not given["end_to_end"]:
            raise SelectionError(f"{said} does nothing with --no-end-to-end; leave one of them out")
    if given.get("tolerance") and not given["end_to_end"]:
        raise SelectionError("a tolerance is of the end-to-end comparison alone, which was left out; leave it out too")


_RUNS = {
    "inputs": "--inputs",
    "shapes": "--shape",
    "drop_statistics": "--drop-statistics",
    "runtimes": "--runtime",
    "may_differ": "--may-differ",
    "for_runtime": "--for",
    "tolerance": "tolerance",
}


def raise_for_idle_with_checkpoints(given: Mapping[str, Any]) -> None:
    """Refuse options that would do nothing to a checkpoint, as their user would never know.

    Raises:
        SelectionError: If any of them is given.
    """
    for name, said in _RUNS.items():
        if given.get(name):
            raise SelectionError(f"{said} does nothing with a checkpoint, which is not run; leave it out")


def _checkpoints(pair: Pair, after: Any) -> Report:
    from normswap.backends.torch.checkpoint import compare_checkpoints, plan_of, read_checkpoint

    raise_for_idle_with_checkpoints({**pair.options(), "may_differ": pair.may_differ})
    if not is_checkpoint(after):
        found = after if isinstance(after, str) else "a model"
        raise SelectionError(f"{pair.before} is a checkpoint, which can only be compared with another; found {found}")
    original = read_checkpoint(pair.before)
    planned = plan_of(original, make_norm(pair.to, prior=pair.prior, over=pair.over), only=pair.only, skip=pair.skip)
    return compare_checkpoints(original, read_checkpoint(after), planned)


def _converted_with(before: Any, weights: str, pair: Pair) -> Any:
    """Return the conversion of a module with the weights of a file, which is then verified like any other."""
    from normswap.backends.torch.factory import load_weights

    if isinstance(before, str):
        raise SelectionError(f"{weights} holds weights alone; give BEFORE as package.module:factory")
    options = pair.options() | {"runtimes": ()}  # which run the weights' own model
    converted = convert(before, pair.to, **options).model  # the same options, so that it has the same plan
    load_weights(converted, weights)
    return converted
