"""Pair: two models and how one is held to the other, as a command line or a settings file gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from normswap.api import convert, verify
from normswap.cli import checkpoints
from normswap.cli.idle import raise_for_idle, raise_for_idle_with_checkpoints
from normswap.cli.source import is_checkpoint, source_of
from normswap.errors import SelectionError, sentence_of
from normswap.norms import Norm, make_norm
from normswap.options import Comparison, Options, argument, option
from normswap.report import Progress, Report
from normswap.reports.outcome import Outcome

__all__ = ["Pair", "outcome_of"]


@dataclass(frozen=True)
class _Models:
    before: str = field(
        metadata=argument(
            "The original: an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors).",
            "model",
            spelled="",
        )
    )
    after: str = field(
        metadata=argument(
            "Its conversion; for a factory this may also be the weights that its model was converted to.",
            "model",
            spelled="",
        )
    )
    to: str = field(metadata=argument("Name of the target.", "target", spelled=""))


@dataclass(frozen=True, kw_only=True)
class Pair(Comparison, _Models):
    """An original and what claims to be its conversion; the other options are those of ``verify``."""

    name: str = option("", "What people call the pair.", "text", spelled="")
    weights: str | None = option(None, "State dict for a factory: .pth or .safetensors.", "path", metavar="FILE")
    after_weights: str | None = option(None, "State dict for a factory given as AFTER.", "path", metavar="FILE")
    parameters: Mapping[str, Any] = field(
        default_factory=dict, metadata=argument("The parameters of the target, by name.")
    )

    @property
    def norm(self) -> Norm:
        """The target."""
        return make_norm(self.to, **self.parameters)

    def options(self, kind: type = Comparison) -> dict[str, Any]:
        """Return the values of those options that a class of options has, by name."""
        return {declared.name: getattr(self, declared.name) for declared in fields(kind)}


def outcome_of(pair: Pair, progress: Progress | None = None) -> Outcome:
    """Hold a pair to its target; trouble with it becomes part of the outcome, whatever it is.

    A factory is the user's code, and is run.
    """
    report, trouble = None, ""
    try:
        report = _report(pair, progress)
    except BrokenPipeError:  # nobody is left to read it
        raise
    except Exception as error:
        trouble = sentence_of(error)
    return Outcome(pair.name or pair.after, pair.before, pair.after, pair.to, report, trouble)


def _report(pair: Pair, progress: Progress | None) -> Report:
    raise_for_idle(pair.options())
    norm = pair.norm
    before = source_of(pair.before, pair.weights)
    after = source_of(pair.after, pair.after_weights, "--after-weights")
    if is_checkpoint(before):
        return _checkpoints(pair, norm, after)
    if is_checkpoint(after):
        after = _converted_with(before, after, norm, pair)
    return verify(before, after, norm, **pair.options() | {"progress": progress})


def _checkpoints(pair: Pair, norm: Norm, after: Any) -> Report:
    raise_for_idle_with_checkpoints(pair.options())
    if not is_checkpoint(after):
        found = after if isinstance(after, str) else "a model"
        raise SelectionError(f"{pair.before} is a checkpoint, which can only be compared with another; found {found}")
    return checkpoints.compare(pair.before, after, norm, only=pair.only, skip=pair.skip)


def _converted_with(before: Any, weights: str, norm: Norm, pair: Pair) -> Any:
    """Return the conversion of a module with the weights of a file, which is then verified like any other."""
    from normswap.backends.torch.factory import load_weights

    if isinstance(before, str):
        raise SelectionError(f"{weights} holds weights alone; give BEFORE as package.module:factory")
    options = pair.options(Options) | {"runtimes": ()}  # which run the weights' own model
    converted = convert(before, norm, **options).model  # the same options, so that it has the same plan
    load_weights(converted, weights)
    return converted
