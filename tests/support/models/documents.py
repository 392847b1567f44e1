"""A document of every command, made by hand, with one name in every place that a name can come to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from normswap.diagnosis import Diagnosis, ModeFinding
from normswap.diagnosis.fewest import Fewest
from normswap.diagnosis.layers import Given, LayerFinding
from normswap.diagnosis.verdict import Verdict
from normswap.layer import NormLayer, Refusal
from normswap.norms import NORMS
from normswap.plan import Choice, Kept, Plan
from normswap.recalibration import Moved, Recalibration
from normswap.recalibration.report import Collected
from normswap.report import Check
from normswap.reports.diagnosis import diagnosed
from normswap.reports.document import Document
from normswap.reports.inspection import inspected
from normswap.reports.recalibration import collected, recalibrated
from normswap.reports.verification import verification
from support.models.outcomes import TROUBLED, hostile

__all__ = ["diagnosis_of", "documents", "layer_named", "recalibration_of"]


def layer_named(name: str, blocked: str = "") -> NormLayer:
    """An eval-mode layer of two channels."""
    values = np.ones(2, np.float32)
    shape = ("N", 2, None, 4)
    return NormLayer(name, "eval", 2, 1e-5, values, values, values, values, shape=shape, blocked=blocked)


def diagnosis_of(name: str, *, complete: bool = True) -> Diagnosis:
    """A diagnosis that saw nothing of its layers."""
    strip = {"input": np.zeros((1, 3, 4, 4), np.float32), "eval": np.ones((1, 3, 4, 4), np.float32)}
    unseen = Given(None, None)
    return Diagnosis(
        Verdict("recalibrate", "eval", f"mean L1 of {name}", (f"{name} thin",)),
        (ModeFinding("eval", 0.5, float("nan"), 0.25), ModeFinding("instance", None, None, float("nan"), f"{name} no")),
        (LayerFinding(layer_named(name), unseen, unseen, None, (f"{name} remark",)),),
        f"instance: {name}",
        3,
        f"{name}.npz",
        "L1",
        (f"{name} note",),
        Fewest((name,), 0.01, 2),
        complete,
        strip,
    )


def recalibration_of(name: str, *, ok: bool = True) -> Recalibration:
    """A recalibration of one layer."""
    detail = f"nothing but {name} changed"
    checks = (Check("structure", name, True, detail=detail), Check("structure", "graph", ok, detail=f"{name} changed"))
    moved = (Moved(name, 3, 12, 0.5, 0.25, float("inf"), float("nan")),)
    left = {f"{name}2": f"{name} left"}
    return Recalibration(None, moved, left, checks, "biased", 0.5, True, 2, (f"{name} note",), Path("out") / "x.onnx")


def documents(name: str) -> dict[str, Document]:
    """Return the documents by what they are of; the first word is the command."""
    layers = [layer_named(name), layer_named(f"{name}2", f"{name} blocks"), layer_named(f"{name}3")]
    plan = Plan(
        NORMS["instance"],
        (layers[0],),
        (Kept(layers[2], "not selected"),),
        (Refusal(layers[1], f"{name} refuses"),),
        {name: Choice("two-pass primitives", f"{name} why")},
    )
    shard = Collected("1/2", {name: 3}, (f"{name} note",), Path("out") / "x.npz")
    return {
        "verify": verification([hostile(name)]),
        "verify, several": verification([hostile(name), hostile(name), TROUBLED]),
        "convert": verification([hostile(name)], "convert"),
        "inspect": inspected(name, layers, None, [f"{name} remark"]),
        "inspect, to instance": inspected(name, layers, plan, [f"{name} remark"]),
        "inspect, without layers": inspected(name, [], None, [f"{name} remark"]),
        "diagnose": diagnosed(diagnosis_of(name), name),
        "diagnose, interrupted": diagnosed(diagnosis_of(name, complete=False), name),
        "recalibrate": recalibrated(recalibration_of(name), name),
        "recalibrate, different": recalibrated(recalibration_of(name, ok=False), name),
        "recalibrate, shard": collected(shard, name),
    }
