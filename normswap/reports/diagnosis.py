"""The document of diagnose: the advice, the ways of running the model, and the layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from normswap.layer import Floats
from normswap.reports.blocks import Block, Code, Fold, Items, Text
from normswap.reports.diagnosis_page import layer_table, mode_table, page_of
from normswap.reports.document import Document, Section, Tone
from normswap.reports.outcome import EQUAL, INTERRUPTED
from normswap.words import counted, inert, json_number, three_digits

if TYPE_CHECKING:  # a Diagnosis words itself through this file, which therefore knows it by its shape alone
    from normswap.diagnosis.findings import Diagnosis
    from normswap.diagnosis.layers import Given
    from normswap.diagnosis.verdict import Advice

__all__ = ["data_of", "diagnosed", "lines_of"]

_MEANS: dict[Advice, str] = {
    "keep eval": "leave the model as it is; its stored statistics serve it well",
    "recalibrate": "give it new stored statistics (normswap recalibrate)",
    "convert to instance": "normalize each sample by its own statistics (normswap convert --to instance)",
    "use batch statistics": "normalize samples by the statistics of their batch (normswap convert --to batch-stat)",
    "retrain": "no way of normalizing makes this model do what the targets ask for",
}
_TONES: dict[Advice, Tone] = {"keep eval": "pass", "retrain": "fail"}
_ABOUT = (
    "runs a network with BatchNorm in several ways on the same data. In eval mode its layers normalize with statistics "
    "that were stored in training, in train mode with those of their input. Only data can tell which of the two is "
    "right, and what to do."
)


def diagnosed(diagnosis: Diagnosis, model: str) -> Document:
    """Return the document of a diagnosis.

    Args:
        diagnosis: What was found.
        model: The model, as it was named.
    """
    verdict, code = diagnosis.verdict, EQUAL if diagnosis.complete else INTERRUPTED
    section = Section(
        name=model,
        models=(model,),
        exit_code=code,
        word=verdict.advice,
        tone=_TONES.get(verdict.advice, "trouble"),
        verdict=_MEANS[verdict.advice],
        lines=lines_of(diagnosis),
        facts=_facts(diagnosis, model),
        summary=_summary(diagnosis),
        page=lambda: page_of(diagnosis),
        warnings=[f"the evidence is thin: {sentence}" for sentence in verdict.thin],
    )
    return Document("diagnose", verdict.advice, code, [section], _ABOUT, data_of(diagnosis))


def _facts(diagnosis: Diagnosis, model: str) -> list[tuple[str, Text]]:
    data = f"{diagnosis.source} ({counted(diagnosis.samples, 'sample')})"
    return [
        ("model", Code(model)),
        ("data", data),
        ("why", diagnosis.verdict.why),
        ("train mode", diagnosis.train),
    ]


def _summary(diagnosis: Diagnosis) -> list[Block]:
    reasons = [diagnosis.verdict.why, *(f"The evidence is thin: {sentence}." for sentence in diagnosis.verdict.thin)]
    blocks: list[Block] = [
        Items(reasons),
        mode_table(diagnosis),
        Fold("Layers", [replace(layer_table(diagnosis), heading="")]),
    ]
    return [*blocks, Fold("Notes", [Items(diagnosis.notes)])] if diagnosis.notes else blocks


def lines_of(diagnosis: Diagnosis) -> list[str]:
    """Return a diagnosis for people: the advice, then the numbers that it rests on."""
    verdict, fewest = diagnosis.verdict, diagnosis.fewest
    lines = [f"{verdict.advice}: {_MEANS[verdict.advice]}", f"  {verdict.why}"]
    lines += [f"  thin: {sentence}" for sentence in verdict.thin]
    lines += ["", *_lines_of_modes(diagnosis), "", *_lines_of_layers(diagnosis)]
    if fewest is not None:
        lines += [
            "",
            f"fewest layers: {len(fewest.names)} of {fewest.of}, converted alone, come to within "
            f"{fewest.distance:.1%} of converting all:",
            f"  {fewest.options}",
        ]
    data = f"data: {diagnosis.source} ({counted(diagnosis.samples, 'sample')})"
    lines += ["", f"train mode: {diagnosis.train}", data]
    return [*lines, *(f"  note: {note}" for note in diagnosis.notes)]


def _lines_of_modes(diagnosis: Diagnosis) -> list[str]:
    width = max(len("way of running it"), *(len(mode.name) for mode in diagnosis.modes))
    errors = any(mode.error is not None for mode in diagnosis.modes)
    head = f"{diagnosis.measure:>10}{'+-':>10}" if errors else ""
    lines = [f"{'way of running it':<{width}}{head}{'from train mode':>18}"]
    for mode in diagnosis.modes:
        if mode.trouble:
            lines.append(f"{mode.name:<{width}}  not run: {mode.trouble}")
            continue
        cells = "".join(f"{three_digits(n):>10}" for n in (mode.error, mode.error_std)) if errors else ""
        lines.append(f"{mode.name:<{width}}{cells}{mode.distance:>18.1%}")
    return lines


def _lines_of_layers(diagnosis: Diagnosis) -> list[str]:
    heads = ("mismatch of stored statistics, in nats", "layer (mean over its channels)")
    width = max(map(len, (*heads, *(found.layer.name for found in diagnosis.layers))))
    lines = [
        f"{heads[0]:<{width}}  {'batch statistics':>18}  {'eval mode':>18}",
        f"{heads[1]:<{width}}  " + "  ".join([f"{'spread':>8}  {'stale by':>8}"] * 2),
    ]
    for found in diagnosis.layers:
        numbers = [number for given in (found.trained, found.eval) for number in (given.spread, given.staleness)]
        cells = "  ".join(f"{three_digits(number):>8}" for number in numbers)
        lines.append(inert(f"{found.layer.name:<{width}}  {cells}  {'; '.join(found.remarks)}".rstrip()))
    return lines


def data_of(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as plain data; numbers that are NaN or infinite are strings."""
    verdict, fewest = diagnosis.verdict, diagnosis.fewest
    return {
        "advice": verdict.advice,
        "mode": verdict.mode,
        "why": verdict.why,
        "thin": list(verdict.thin),
        "train": diagnosis.train,
        "samples": diagnosis.samples,
        "source": diagnosis.source,
        "measure": diagnosis.measure,
        "complete": diagnosis.complete,
        "notes": list(diagnosis.notes),
        "fewest": fewest and {"layers": list(fewest.names), "of": fewest.of, "distance": json_number(fewest.distance)},
        "modes": [
            {
                "name": mode.name,
                "error": json_number(mode.error),
                "error_std": json_number(mode.error_std),
                "distance": json_number(mode.distance),
                "trouble": mode.trouble,
            }
            for mode in diagnosis.modes
        ],
        "layers": [
            {
                "name": found.layer.name,
                "trained": _mismatch(found.trained),
                "eval": _mismatch(found.eval),
                "remarks": list(found.remarks),
            }
            for found in diagnosis.layers
        ],
    }


def _mismatch(given: Given) -> dict[str, Any] | None:
    if given.mismatch is None:
        return None
    return {
        "spread": json_number(given.spread),
        "staleness": json_number(given.staleness),
        "channels": {
            "spread": _numbers(given.mismatch.spread),
            "staleness": _numbers(given.mismatch.staleness),
        },
    }


def _numbers(values: Floats) -> list[float | str | None]:
    return [json_number(float(f"{value:.6g}")) for value in values]
