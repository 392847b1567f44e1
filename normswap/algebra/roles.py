"""Roles: what a recognized normalization is, by the axes of its statistics and of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from normswap.algebra.expressions import Expr
from normswap.algebra.recognition import Form
from normswap.algebra.values import Layout

__all__ = ["Meaning", "NormRole", "meaning_of"]

NormRole: TypeAlias = Literal[
    "batch-stat", "train", "instance", "eval", "group", "layer-norm", "rms-norm", "renorm", "unknown"
]


@dataclass(frozen=True)
class Meaning:
    """What a normalization is.

    Attributes:
        role: Its name.
        channels: Dimensions of x that gain and offset differ along; without these, that the statistics leave.
        over: Dimensions of x that the statistics span, in part or whole.
        note: What was seen, where the role does not say it.
    """

    role: NormRole
    channels: tuple[int, ...]
    over: tuple[int, ...] = ()
    note: str = ""

    @property
    def channel_axis(self) -> int | None:
        """The dimension of the channels, if there is one."""
        return self.channels[0] if len(self.channels) == 1 else None


def meaning_of(form: Form, layout: Layout) -> Meaning:
    """Tell the role of a form over x laid out so; its first dimension is the batch."""
    parts: list[Expr] = [form.g, form.b, *([form.m, form.v] if form.kind == "stored" else [])]
    varying = frozenset().union(*(part.axes for part in parts))
    along = tuple(place for place, group in enumerate(layout) if varying & set(group))
    if form.kind == "stored":
        return Meaning("eval", along)
    over = tuple(place for place, group in enumerate(layout) if form.over & set(group))
    left = tuple(place for place, group in enumerate(layout) if not form.over & set(group))
    channels = along or (left[1:] if 0 in left else left)
    if form.kind == "rms":
        return Meaning("rms-norm", channels, over)
    if form.kind == "scaled":
        return Meaning("unknown", channels, over, "its variance is not divided by the count, as the unbiased one is")
    if form.kind == "unknown":
        return Meaning("unknown", channels, over, "its variance is not that of its input")
    role, note = _by_axes(form, layout, along, over, left)
    if form.kind == "corrected":
        if role in ("batch-stat", "instance"):
            return Meaning("renorm", channels, over, "its statistics are corrected within bounds")
        return Meaning("unknown", channels, over, "its gain or offset is a function of its statistics")
    return Meaning(role, channels, over, note)


def _by_axes(
    form: Form, layout: Layout, along: tuple[int, ...], over: tuple[int, ...], left: tuple[int, ...]
) -> tuple[NormRole, str]:
    """Return the role that the axes of the statistics tell, with a note."""
    if any(form.over & set(group) and set(group) - form.over for group in layout):
        return ("group", "") if 0 in left else ("unknown", "its statistics span parts of a dimension")
    if 0 not in left:
        if len(left) == 1 and set(along) <= set(left):
            return "batch-stat", ""
        return "unknown", _seen(over, along)
    if along and set(along) <= set(over):
        return "layer-norm", ""
    trailing = over == tuple(range(len(layout) - len(over), len(layout)))
    if not along and (len(left) == 1 or (trailing and len(left) > 2)):
        return "layer-norm", ""
    if len(left) == 2 and set(along) <= set(left):
        ambiguous = len(layout) == 3 and not along
        return "instance", "without gain and offset, a layer norm over one axis reads the same" if ambiguous else ""
    return "unknown", _seen(over, along)


def _seen(over: tuple[int, ...], along: tuple[int, ...]) -> str:
    def spelled(places: tuple[int, ...]) -> str:
        return ", ".join(map(str, places)) or "none"

    return f"its statistics span dimensions {spelled(over)}, its gain and offset differ along {spelled(along)}"
