"""Plan: what will change, what stays as it is, what is refused, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from normswap.errors import NothingToConvertError, RefusedLayersError, SelectionError
from normswap.layer import NormLayer, Refusal
from normswap.norms import Norm
from normswap.norms.base import Form
from normswap.words import nearest

__all__ = ["Choice", "Kept", "Plan", "make_plan", "raise_for_idle_globs", "selected"]


@dataclass(frozen=True)
class Kept:
    """A layer that is meant to stay as it is: not selected, already the target, or never touched."""

    layer: NormLayer
    reason: str


@dataclass(frozen=True)
class Choice:
    """The form that a layer is written in for a runtime, and why."""

    form: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What a conversion does: shown by ``inspect --to``, carried out by ``rewrite``, held to by ``verify``.

    Attributes:
        norm: The target.
        layers: The layers to be rewritten, in the model's order.
        kept: The layers that are meant to stay as they are.
        refusals: The selected layers that the target cannot take.
        forms: The form that a layer of an ONNX model is written in and why, by the layer's name; layers without an
            entry are written in the norm's default.
    """

    norm: Norm
    layers: tuple[NormLayer, ...]
    kept: tuple[Kept, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    forms: Mapping[str, Choice] = field(default_factory=dict)

    def form_of(self, layer: NormLayer) -> Form:
        """Return the form that a planned layer is written in."""
        choice = self.forms.get(layer.name)
        return self.norm.form_of(layer) if choice is None else self.norm.forms[choice.form]

    @property
    def left(self) -> dict[str, str]:
        """Why each layer that is not rewritten stays as it is, by name."""
        left = {kept.layer.name: kept.reason for kept in self.kept}
        return left | {refusal.layer.name: f"REFUSED: {refusal.reason}" for refusal in self.refusals}

    def named(self, globs: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the layers to be rewritten that match any glob.

        Raises:
            SelectionError: If a glob matches none of them.
        """
        names = [layer.name for layer in self.layers]
        raise_for_idle_globs(globs, names, "that are to be converted")
        return tuple(name for name in names if any(fnmatchcase(name, glob) for glob in globs))

    def raise_for_trouble(self, allow_refusals: bool = False) -> None:
        """Raise RefusedLayersError or NothingToConvertError if the plan cannot be carried out as asked."""
        if not allow_refusals:
            self.raise_for_refusals()
        self.raise_for_nothing()

    def raise_for_refusals(self) -> None:
        """Raise RefusedLayersError if any selected layer was refused."""
        if self.refusals:
            raise RefusedLayersError(self.refusals)

    def raise_for_nothing(self) -> None:
        """Raise NothingToConvertError if no layer is to be rewritten."""
        if self.layers:
            return
        left: list[Kept | Refusal] = [*self.kept, *self.refusals]
        if not left:
            raise NothingToConvertError(
                f"no BatchNorm was found, so there is nothing to convert to {self.norm.name}; "
                "normswap inspect shows whether they look folded, and how to export so that they stay"
            )
        raise NothingToConvertError(
            f"none of {len(left)} BatchNorm layers would change to {self.norm.name}: "
            f"{left[0].layer.name}: {left[0].reason}"
        )


def make_plan(
    norm: Norm,
    layers: Iterable[NormLayer],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    choose: Callable[[NormLayer], Choice | str] | None = None,
) -> Plan:
    """Decide for every layer whether ``norm`` replaces it.

    Args:
        norm: The target.
        layers: All layers of the model, in order.
        only: Globs (``fnmatch``, case matters); if any are given, a layer must match one to be selected.
        skip: Globs; a layer that matches one is not selected.
        choose: Gives the form that a layer is written in, or why there is none; the norm's default if None.

    Raises:
        SelectionError: If a glob matches no layer.
    """
    layers = tuple(layers)
    raise_for_idle_globs((*only, *skip), [layer.name for layer in layers])
    chosen: list[NormLayer] = []
    kept: list[Kept] = []
    refusals: list[Refusal] = []
    forms: dict[str, Choice] = {}
    for layer in layers:
        if not selected(layer.name, only, skip):
            kept.append(Kept(layer, "not selected"))
        elif layer.role == "weight":
            kept.append(Kept(layer, "weight standardisation: it normalizes a parameter and is never touched"))
        elif layer.role == norm.equals:
            kept.append(Kept(layer, f"already {norm.name}: its role is {layer.role}"))
        elif reason := layer.blocked or norm.refuse(layer):
            refusals.append(Refusal(layer, reason))
        elif isinstance(choice := choose(layer) if choose else None, str):
            refusals.append(Refusal(layer, choice))
        else:
            chosen.append(layer)
            if choice is not None:
                forms[layer.name] = choice
    return _keep_shared_bodies_whole(Plan(norm, tuple(chosen), tuple(kept), tuple(refusals), forms), layers)


def selected(name: str, only: Sequence[str], skip: Sequence[str]) -> bool:
    """Whether globs select a layer: any of ``only``, if there are any, and none of ``skip``."""
    chosen = not only or any(fnmatchcase(name, glob) for glob in only)
    return chosen and not any(fnmatchcase(name, glob) for glob in skip)


def raise_for_idle_globs(globs: Iterable[str], names: Sequence[str], which: str = "found") -> None:
    """Raise SelectionError if a glob matches none of the layers' names."""
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise SelectionError(
                f"no BatchNorm layer matches {glob!r} among the {len(names)} {which}"
                f"{nearest(glob, names)}; normswap inspect lists their names"
            )


def _keep_shared_bodies_whole(plan: Plan, layers: Sequence[NormLayer]) -> Plan:
    """Refuse a layer whose function body also serves a layer that is not planned."""
    planned = {layer.name for layer in plan.layers}
    left = {layer.body: layer.name for layer in layers if layer.body and layer.name not in planned}

    def split(layer: NormLayer) -> bool:
        return bool(layer.body) and layer.body in left

    refusals = tuple(
        Refusal(
            layer,
            f"its code, {layer.body}, also computes {left[layer.body]}, which stays as it is; "
            "select all of its calls or none",
        )
        for layer in plan.layers
        if split(layer)
    )
    whole = tuple(layer for layer in plan.layers if not split(layer))
    forms = {layer.name: plan.forms[layer.name] for layer in whole if layer.name in plan.forms}
    return replace(plan, layers=whole, refusals=(*plan.refusals, *refusals), forms=forms)
