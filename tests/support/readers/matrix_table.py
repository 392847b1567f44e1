"""Tables of docs/reference/runtimes.md, printed by ``PYTHONPATH=tests python -m support.readers.matrix_table``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from normswap import NORMS
from normswap.runtimes.table import SUPPORT, Cell, Support
from support.models.targets import TARGETS

__all__ = ["documented_table", "measured_table"]

MARKS = {
    "right": "✓",
    "coarse": "coarse",
    "cancels": "cancels",
    "wrong": "**wrong**",
    "refused": "refused",
    "taken": "✓",
}


def measured_table() -> str:
    """What the tests measure: float32 and float16, and the cost in float32."""
    return _table([name for name, support in SUPPORT.items() if support.measured], _measured)


def documented_table() -> str:
    """What documentation says, with its sources below."""
    names = [name for name, support in SUPPORT.items() if not support.measured]
    sources = [f"- {name}: {SUPPORT[name].version}; {SUPPORT[name].source}" for name in names]
    return "\n".join([_table(names, _documented), "", *sources])


def _table(names: Sequence[str], spelled: object) -> str:
    assert callable(spelled)
    keys = list(dict.fromkeys(key for name in names for key in SUPPORT[name].cells))
    order = {target: index for index, target in enumerate(NORMS)}
    ours = {(norm.name, form) for norm in TARGETS.values() for form in norm.forms}
    keys.sort(key=lambda key: (order[key[0]], key not in ours))
    heads = [f"{name} {SUPPORT[name].version}" if SUPPORT[name].measured else name for name in names]
    rows = [["`--to`", "form", *heads], ["---"] * (len(names) + 2)]
    for target, form in keys:
        cells = [spelled(SUPPORT[name], (target, form)) for name in names]
        rows.append([f"`{target}`", form if (target, form) in ours else f"*{form}*", *cells])
    return "\n".join(_line(row) for row in rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _measured(support: Support, key: tuple[str, str]) -> str:
    cells = support.cells[key]
    shown = [_verdict(cells[dtype]) for dtype in ("float32", "float16") if dtype in cells]
    cost = next((f" {cell.cost:.1f}" for cell in cells.values() if cell.cost is not None), "")
    return f"{shown[0]}{cost}" if len(set(shown)) == 1 else f"{shown[0]}{cost}, f16 {shown[-1]}"


def _verdict(cell: Cell) -> str:
    one, four = cell.verdicts
    return MARKS[one] if one == four else f"{MARKS[one]} (N 1), {MARKS[four]} (N 4)"


def _documented(support: Support, key: tuple[str, str]) -> str:
    cell = support.cells.get(key, {}).get("float32") or support.cells.get(key, {}).get("float16")
    if cell is None:
        return "?"
    return _verdict(cell) + (f" to opset {cell.opset}" if cell.opset is not None else "")


if __name__ == "__main__":
    sys.stdout.write(f"{measured_table()}\n\n{documented_table()}\n")
