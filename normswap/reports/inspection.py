"""The document of inspect: the BatchNorm layers of a model, and what a conversion would do to each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from normswap.layer import NormLayer
from normswap.plan import Plan
from normswap.reports.blocks import Block, Cell, Code, Column, Items, Row, Table, Text
from normswap.reports.checks import spelled_forms
from normswap.reports.document import Document, Section
from normswap.reports.outcome import EQUAL
from normswap.words import counted, inert

__all__ = ["inspected"]

_ABOUT = (
    "lists the BatchNorm layers of a network: what each computes today, and, with a target, what converting it would "
    "do. Nothing was converted."
)


def inspected(model: str, layers: Sequence[NormLayer], planned: Plan | None, remarks: Sequence[str]) -> Document:
    """Return the document of an inspection.

    Args:
        model: The model, as it was named.
        layers: Its layers.
        planned: What a conversion would do; None where no target was given.
        remarks: What else a reader must know, a sentence each.
    """
    fates = _fates(planned)
    word = counted(len(layers), "BatchNorm layer")
    roles = ", ".join(f"{count} {role}" for role, count in Counter(layer.role for layer in layers).most_common())
    verdict = roles or "there is nothing to convert"
    table = _table(layers, planned, fates)
    sentences = [f"{word}: {roles}"] if layers else []
    forms = [] if planned is None else spelled_forms(planned.forms)
    if planned is not None and layers:
        counts = Counter(fate for fate, _ in fates.values()).most_common()
        fate = ", ".join(f"{count} {fate}" for fate, count in counts)
        verdict = f"{verdict}; to {planned.norm.name}: {fate}"
        sentences.append(f"--to {planned.norm.name} ({planned.norm.meaning}): {fate}")
        sentences += forms
    blocks: list[Block] = [table] if layers else []
    if items := [*forms, *remarks]:
        blocks.append(Items(items, "Notes"))
    facts: list[tuple[str, Text]] = [("model", Code(model))]
    if planned is not None:
        facts.append(("target", (Code(planned.norm.name), f": {planned.norm.meaning}")))
    section = Section(
        name=model,
        models=(model,),
        exit_code=EQUAL,
        word=word,
        tone="note",
        verdict=verdict,
        lines=[*([table] if layers else []), *sentences, *map(inert, remarks)],
        to="" if planned is None else planned.norm.name,
        facts=facts,
        summary=blocks,
        page=lambda: blocks,
        warnings=_warnings(layers, planned),
    )
    data = _data(model, layers, planned, fates, remarks)
    return Document("inspect", f"{word}: {verdict}", EQUAL, [section], _ABOUT, data)


def _fates(planned: Plan | None) -> dict[str, tuple[str, str]]:
    """Return what becomes of each layer, and why, by its name."""
    if planned is None:
        return {}
    fates = {layer.name: ("converted", planned.norm.meaning) for layer in planned.layers}
    fates |= {kept.layer.name: ("kept", kept.reason) for kept in planned.kept}
    return fates | {refusal.layer.name: ("refused", refusal.reason) for refusal in planned.refusals}


def _warnings(layers: Sequence[NormLayer], planned: Plan | None) -> list[str]:
    if planned is not None:
        return [f"{refusal.layer.name}: refused: {refusal.reason}" for refusal in planned.refusals]
    return [f"{layer.name}: {layer.blocked}" for layer in layers if layer.blocked]


def _table(layers: Sequence[NormLayer], planned: Plan | None, fates: dict[str, tuple[str, str]]) -> Table:
    columns = [Column("name"), Column("role"), Column("channels", "number"), Column("eps", "number")]
    columns += [Column("type"), Column("shape")]
    noted = planned is not None or any(layer.blocked for layer in layers)
    if noted:
        columns.append(Column("note" if planned is None else f"--to {planned.norm.name}"))
    rows = []
    for layer in layers:
        cells: list[Cell] = [
            Code(layer.name),
            layer.role,
            "?" if layer.num_features is None else str(layer.num_features),
            "?" if math.isnan(layer.eps) else f"{layer.eps:.3g}",
            layer.dtype,
            _spelled_shape(layer),
        ]
        if noted:
            cells.append(layer.blocked if planned is None else _spelled_fate(layer, planned, fates))
        refused = planned is not None and fates[layer.name][0] == "refused"
        rows.append(Row(cells, failed=refused))
    return Table("layers", columns, rows, "Layers")


def _spelled_fate(layer: NormLayer, planned: Plan, fates: dict[str, tuple[str, str]]) -> str:
    fate, reason = fates[layer.name]
    if fate != "converted":
        return f"{fate}: {reason}"
    return f"converted: {planned.forms[layer.name].form}" if layer.name in planned.forms else fate


def _spelled_shape(layer: NormLayer) -> str:
    if layer.shape is None:
        return "?"
    return f"[{', '.join('?' if dim is None else str(dim) for dim in layer.shape)}]"


def _data(
    model: str,
    layers: Sequence[NormLayer],
    planned: Plan | None,
    fates: dict[str, tuple[str, str]],
    remarks: Sequence[str],
) -> dict[str, Any]:
    return {
        "model": model,
        "to": None if planned is None else planned.norm.name,
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
        "remarks": list(remarks),
    }
