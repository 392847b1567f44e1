"""For tests: assert that a converted model is equivalent to its original, and show where and how much it differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from normswap.api import verify
from normswap.options import Verifying, keywords_of, takes
from normswap.report import WITNESSES, Check, Report
from normswap.reports.checks import described, grouped

__all__ = ["assert_equivalent"]

_SHOWN = 3  # failures of a witness that are described in full


@takes(Verifying)
def assert_equivalent(asked: Verifying) -> Report:
    """Assert that a converted model computes what its target states, as ``normswap.verify`` finds it.

    A report that holds may rest on fewer than all witnesses: between frameworks, without ``end_to_end``, with layers
    that may differ. There is no warning; ``report.verdict`` names it, and ``report.notes`` lists what was not compared.
    A test that needs all witnesses asserts ``not report.unheard``.

    Returns:
        The report, which holds.

    Raises:
        AssertionError: If the models are not shown equivalent. The message lists what failed, how many elements, by
            how much and where, what was allowed, the likely cause, and what was not compared.
        NormswapError: If nothing could be compared: a model that cannot be read or run, layers that are refused, no
            layer to convert. Its kinds are those of ``normswap.verify``.

    Examples:
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
    report = verify(**keywords_of(asked))
    if not report.ok:
        raise AssertionError(_message(report))
    return report


def _message(report: Report) -> str:
    """List what failed, witness by witness, then what was not compared."""
    parts = [f"The models are not equivalent: {report.verdict}"]
    for witness in WITNESSES:
        failed = [check for check in report.failed if check.witness == witness]
        if failed:
            of = "" if witness == "structure" else f" of {len(report.of(witness))}"
            lines = [f"{witness}: {len(failed)}{of} failed"]
            for check in failed[:_SHOWN]:
                lines += _described(check)
            parts.append("\n".join([*lines, *_more(failed[_SHOWN:])]))
    rest = [f"allowed to differ: {described(check)}" for check in report.allowed[:_SHOWN]]
    rest += [f"left as they are: {group}" for group in grouped(report.left)]
    rest += [f"inputs: {report.inputs}", *(f"note: {note}" for note in report.notes)]
    return "\n\n".join([*parts, "\n".join(rest)])


def _described(check: Check) -> list[str]:
    if check.witness == "structure":
        return [f"  {check.detail}"]
    lines = [f"  {check.name}"]
    if check.wrong is not None and check.size:
        lines.append(f"    Mismatched elements: {check.wrong} / {check.size} ({check.wrong / check.size:.1%})")
    if check.error is not None and check.bound is not None:
        at = "" if check.index is None else f" at index {check.index}"
        lines.append(f"    Worst difference: {check.error:.3g}{at} (up to {check.bound:.3g} allowed)")
    remarks = (check.detail, f"Likely cause: it {check.cause}" if check.cause else "")
    return [*lines, *(f"    {remark}" for remark in remarks if remark)]


def _more(rest: Sequence[Check]) -> list[str]:
    """Count what is not described in full, by its likely cause."""
    if not rest:
        return []
    causes = Counter(check.cause for check in rest if check.cause)
    looks = "; ".join(f"{count} {cause.replace('looks', 'look', 1)}" for cause, count in causes.most_common(_SHOWN))
    return [f"  ... and {len(rest)} more" + (f": {looks}" if looks else "")]
