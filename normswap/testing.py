"""For tests: assert that a converted model is equivalent to its original, and say where and how much it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from normswap.api import verify
from normswap.norms.rounding import Tolerance
from normswap.report import WITNESSES, Check, Report
from normswap.reports.checks import described, grouped

__all__ = ["assert_equivalent"]

_SHOWN = 3  # failures of a witness that are told in full


def assert_equivalent(
    before: Any,
    after: Any,
    to: str,
    *,
    inputs: Any = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    may_differ: Sequence[str] = (),
    allow_refusals: bool = False,
    drop_statistics: bool = False,
    end_to_end: bool = True,
    tolerance: Tolerance | None = None,
    seed: int = 0,
) -> Report:
    """Assert that a converted model computes what its target states, as ``normswap.verify`` finds it.

    A report that holds may rest on less than all three witnesses: between frameworks, without ``end_to_end``, with
    layers that may differ. Nothing warns of that; ``report.verdict`` says it, and ``report.notes`` says what was not
    compared. A test that needs all of them asserts ``not report.unheard``.

    Args:
        before: The original: path of an .onnx or .pt2 file, an onnx.ModelProto, an nn.Module or an ExportedProgram.
        after: What claims to be its conversion; it may be of another framework.
        to: Name of the target, one of normswap.NORMS.
        inputs: End-to-end inputs, as ``normswap.convert`` takes them; generated if not given.
        shapes: Shapes of generated inputs, by input name.
        only: Globs; if any are given, only layers that match one have to be converted.
        skip: Globs; layers that match one have to be as they were.
        may_differ: Globs of converted layers whose own checks may fail.
        allow_refusals: Whether layers that the target cannot take may stay as they are.
        drop_statistics: Whether outputs that carry nothing but running statistics are gone.
        end_to_end: Run the whole model too.
        tolerance: Margins of the end-to-end comparison.
        seed: Of generated inputs and probes.

    Returns:
        The report, which holds.

    Raises:
        AssertionError: If the models are not shown equivalent. It says what failed, how many elements, how much and
            where, what was allowed, the likely cause, and what was not compared.
        NormswapError: If nothing could be compared: a model that cannot be read or run, layers that are refused, no
            layer to convert. Its kinds are those of ``normswap.verify``.

    Example:
        >>> import normswap
        >>> from normswap.testing import assert_equivalent
        >>> original = "fixtures/lowlight.onnx"
        >>> converted = normswap.convert(original, to="instance").model
        >>> assert_equivalent(original, converted, to="instance").verdict
        'equal to train-mode BatchNorm fed one sample at a time'
        >>> assert_equivalent(original, original, to="instance")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        AssertionError: The models are not equivalent: NOT shown equal to train-mode BatchNorm fed one sample...
    """
    __tracebackhide__ = True  # pytest shows the line of the test instead of this one
    report = verify(
        before,
        after,
        to,
        inputs=inputs,
        shapes=shapes,
        only=only,
        skip=skip,
        may_differ=may_differ,
        allow_refusals=allow_refusals,
        drop_statistics=drop_statistics,
        end_to_end=end_to_end,
        tolerance=tolerance,
        seed=seed,
    )
    if not report.ok:
        raise AssertionError(_message(report))
    return report


def _message(report: Report) -> str:
    """Tell of each witness what failed, then what was not compared."""
    parts = [f"The models are not equivalent: {report.verdict}"]
    for witness in WITNESSES:
        failed = [check for check in report.failed if check.witness == witness]
        if failed:
            of = "" if witness == "structure" else f" of {len(report.of(witness))}"
            lines = [f"{witness}: {len(failed)}{of} failed"]
            for check in failed[:_SHOWN]:
                lines += _told(check)
            parts.append("\n".join([*lines, *_more(failed[_SHOWN:])]))
    said = [f"allowed to differ: {described(check)}" for check in report.allowed[:_SHOWN]]
    said += [f"left as they are: {group}" for group in grouped(report.left)]
    said += [f"inputs: {report.inputs}", *(f"note: {note}" for note in report.notes)]
    return "\n\n".join([*parts, "\n".join(said)])


def _told(check: Check) -> list[str]:
    if check.witness == "structure":
        return [f"  {check.detail}"]
    lines = [f"  {check.name}"]
    if check.wrong is not None and check.size:
        lines.append(f"    Mismatched elements: {check.wrong} / {check.size} ({check.wrong / check.size:.1%})")
    if check.error is not None and check.bound is not None:
        at = "" if check.index is None else f" at index {check.index}"
        lines.append(f"    Worst difference: {check.error:.3g}{at} (up to {check.bound:.3g} allowed)")
    lines += [
        f"    {said}" for said in (check.detail, f"Likely cause: it {check.cause}" if check.cause else "") if said
    ]
    return lines


def _more(rest: Sequence[Check]) -> list[str]:
    """Count what is not told in full, by what it looks like."""
    if not rest:
        return []
    causes = Counter(check.cause for check in rest if check.cause)
    looks = "; ".join(f"{count} {cause.replace('looks', 'look', 1)}" for cause, count in causes.most_common(_SHOWN))
    return [f"  ... and {len(rest)} more" + (f": {looks}" if looks else "")]
