"""Choose a form for each layer: the one that a runtime computes correctly and fastest, by the table."""

from __future__ import annotations

from collections.abc import Callable

from normswap.errors import SelectionError
from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.plan import Choice
from normswap.runtimes.table import SUPPORT, Cell, Verdict
from normswap.words import nearest

__all__ = ["choose_for", "chooser"]

_NOT_SLOWER = 1.25  # costs this near to the least are taken as equal: they are measured to some ten per cent


def choose_for(norm: Norm, runtime: str | None, opset: int | None) -> Callable[[NormLayer], Choice | str] | None:
    """Return ``chooser`` for a model; None where no runtime is named.

    Args:
        norm: The target.
        runtime: A key of SUPPORT.
        opset: Version of the model's default operator set; None for a model that is not ONNX.

    Raises:
        SelectionError: If the runtime is unknown, or the model is not ONNX.
    """
    if runtime is None:
        return None
    if opset is None:
        raise SelectionError(
            f"--for {runtime} chooses how layers are written in ONNX; convert an .onnx file, or leave it out"
        )
    return chooser(norm, runtime, opset)


def chooser(norm: Norm, runtime: str, opset: int) -> Callable[[NormLayer], Choice | str]:
    """Return what chooses a form for each layer, or says why there is none.

    Args:
        norm: The target.
        runtime: A key of SUPPORT.
        opset: Version of the model's default operator set.

    Raises:
        SelectionError: If the runtime is unknown.
    """
    if runtime not in SUPPORT:
        raise SelectionError(f"unknown runtime {runtime!r}{nearest(runtime, SUPPORT)}; known are {', '.join(SUPPORT)}")
    support = SUPPORT[runtime]

    def choose(layer: NormLayer) -> Choice | str:
        known = {
            name: cell
            for name, form in norm.forms.items()
            if form.takes(layer) and (cell := support.cells.get((norm.name, name), {}).get(layer.dtype)) is not None
        }
        usable = {name: cell for name, cell in known.items() if cell.usable(opset)}
        if not known:
            return f"nothing is known of {norm.name} in {layer.dtype} for {runtime}"
        if not usable:
            words = ", ".join(f"{name} ({_described(cell)})" for name, cell in known.items())
            return f"no form of {norm.name} in {layer.dtype} is right in {runtime}: {words}"
        least = min(cell.cost or 1.0 for cell in usable.values())
        name = next(name for name, cell in usable.items() if (cell.cost or 1.0) <= _NOT_SLOWER * least)
        others = [f"{other} ({_described(cell)})" for other, cell in known.items() if other != name]
        instead = f", instead of {', '.join(others)}" if others else ""
        if support.measured:
            return Choice(name, f"{_described(known[name])} in {runtime} {support.version}{instead}")
        return Choice(
            name, f"{_described(known[name])} in {runtime}, by {support.source}; it was not run there{instead}"
        )

    return choose


_WORDS: dict[Verdict, str] = {
    "right": "right",
    "coarse": "coarse, in half precision",
    "cancels": "cancels where |mean| is large",
    "wrong": "wrong",
    "refused": "refused",
    "taken": "taken",
}


def _described(cell: Cell) -> str:
    """Describe a cell in a few words."""
    one, four = cell.verdicts
    words = _WORDS[one] if one == four else f"{_WORDS[one]} for a batch of one, {_WORDS[four]} for four"
    if cell.opset is not None:
        words += f" up to opset {cell.opset}"
    if cell.cost is not None:
        words += f" at {cell.cost:.1f} times the time of eval-mode BatchNormalization"
    return f"{words}: {cell.why}" if cell.why else words
