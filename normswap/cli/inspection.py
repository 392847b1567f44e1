"""What ``inspect`` shows: the layers of a model, and what would become of each, for people and for machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from normswap.layer import NormLayer
from normswap.plan import Plan
from normswap.reports.checks import spelled_forms
from normswap.words import counted

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["inspection", "listing"]


def inspection(model: str, layers: Sequence[NormLayer], planned: Plan | None, remarks: list[str]) -> dict[str, Any]:
    """Return layers and what would become of them as plain data, for machines."""
    fates = _fates(planned)
    return {
        "model": model,
        "to": planned.norm.name if planned else None,
        "layers": [
            {
                "name": layer.name,
                "role": layer.role,
                "num_features": layer.num_features,
                "eps": layer.eps if math.isfinite(layer.eps) else None,
                "dtype": layer.dtype,
                "rank": layer.rank,
                "shape": None if layer.shape is None else list(layer.shape),
                "blocked": layer.blocked or None,
                **({"fate": fates[layer.name][0], "reason": fates[layer.name][1]} if planned else {}),
                **({"form": planned.forms[layer.name].form} if planned and layer.name in planned.forms else {}),
            }
            for layer in layers
        ],
        "remarks": remarks,
    }


def _fates(planned: Plan | None) -> dict[str, tuple[str, str]]:
    if planned is None:
        return {}
    fates = {layer.name: ("converted", planned.norm.meaning) for layer in planned.layers}
    fates |= {kept.layer.name: ("kept", kept.reason) for kept in planned.kept}
    return fates | {refusal.layer.name: ("refused", refusal.reason) for refusal in planned.refusals}


def listing(layers: Sequence[NormLayer], planned: Plan | None, remarks: list[str]) -> list[Table | str]:
    """Return layers and what would become of them for people: a table for rich, then sentences."""
    from rich.table import Table

    shown: list[Table | str] = []
    if layers:
        fates = _fates(planned)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("name", "role", "channels", "eps", "type", "shape"):
            right = heading in ("channels", "eps")
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
        noted = planned is not None or any(layer.blocked for layer in layers)
        if noted:
            table.add_column(f"--to {planned.norm.name}" if planned else "note", overflow="fold")
        for layer in layers:
            cells = [
                layer.name,
                layer.role,
                "?" if layer.num_features is None else str(layer.num_features),
                "?" if math.isnan(layer.eps) else f"{layer.eps:.3g}",
                layer.dtype,
                _spelled_shape(layer),
            ]
            if planned is not None:
                fate, reason = fates[layer.name]
                if fate == "converted":
                    chosen = planned.forms.get(layer.name)
                    cells.append(f"converted: {chosen.form}" if chosen else "converted")
                else:
                    cells.append(f"{fate}: {reason}")
            elif noted:
                cells.append(layer.blocked)
            table.add_row(*cells)
        shown.append(table)
        roles = Counter(layer.role for layer in layers)
        by_role = ", ".join(f"{count} {role}" for role, count in roles.most_common())
        shown.append(f"{counted(len(layers), 'BatchNorm layer')}: {by_role}")
        if planned is not None:
            by_fate = ", ".join(f"{n} {fate}" for fate, n in Counter(f for f, _ in fates.values()).most_common())
            shown.append(f"--to {planned.norm.name} ({planned.norm.meaning}): {by_fate}")
            shown += spelled_forms(planned.forms)
    return [*shown, *remarks]


def _spelled_shape(layer: NormLayer) -> str:
    if layer.shape is None:
        return "?"
    return f"[{', '.join('?' if dim is None else str(dim) for dim in layer.shape)}]"
