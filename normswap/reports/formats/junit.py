"""JUnit XML, as CI servers read it: a suite for each pair, a case for each layer and witness.

References:
    The format has no standard of its own; elements and attributes are those of testmoapp/junitxml, which the usual
    viewers (Jenkins, GitLab, Azure, pytest's own output) agree on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from xml.etree import ElementTree

from normswap.report import Report
from normswap.reports.checks import described, spelled_forms
from normswap.reports.outcome import Outcome
from normswap.words import visible

__all__ = ["render"]


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as JUnit XML."""
    suites = ElementTree.Element("testsuites", name="normswap")
    for outcome in outcomes:
        suites.append(_suite(outcome, created))
    _add_up(suites)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _suite(outcome: Outcome, created: datetime) -> ElementTree.Element:
    stamp = created.strftime("%Y-%m-%dT%H:%M:%S")
    suite = ElementTree.Element("testsuite", name=visible(outcome.name), timestamp=stamp, time="0")
    properties = ElementTree.SubElement(suite, "properties")
    for key in ("before", "after", "to", "verdict"):
        ElementTree.SubElement(properties, "property", name=key, value=visible(str(getattr(outcome, key))))
    if outcome.report is None:
        case = _case(suite, outcome, "trouble", "verify")
        _message(case, "error", outcome.trouble)
    else:
        _fill(suite, outcome, outcome.report)
        report = outcome.report
        said = [f"inputs: {report.inputs}", *spelled_forms(report.forms), *(f"note: {note}" for note in report.notes)]
        ElementTree.SubElement(suite, "system-out").text = "\n".join(map(visible, said))
    _add_up(suite)
    return suite


def _fill(suite: ElementTree.Element, outcome: Outcome, report: Report) -> None:
    for check in report.checks:
        case = _case(suite, outcome, check.witness, check.name)
        if check in report.failed:
            _message(case, "failure", described(check))
        elif not check.ok:
            _message(case, "skipped", f"allowed to differ: {described(check)}")
        else:
            ElementTree.SubElement(case, "system-out").text = visible(described(check))
    probed = Counter(check.name for check in report.of("probes"))
    for name in (Counter(report.planned) - probed).elements():
        case = _case(suite, outcome, "probes", name)
        if "probes" in report.needed:
            _message(case, "failure", "no probe saw this layer")
        else:
            _message(case, "skipped", "layers were not probed")
    for witness in report.unheard:
        if witness != "probes":
            _message(_case(suite, outcome, witness, "not run"), "skipped", "this witness was not run")
    for name, reason in report.left.items():
        _message(_case(suite, outcome, "left as it is", name), "skipped", reason)
    if not report.ok and suite.find(".//failure") is None:  # a witness that was not run though needed, say
        _message(_case(suite, outcome, "verdict", outcome.to), "failure", report.verdict)


def _case(suite: ElementTree.Element, outcome: Outcome, witness: str, name: str) -> ElementTree.Element:
    classname = visible(f"{outcome.name}.{witness}")
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=visible(name), time="0")


def _message(case: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(case, tag, message=visible(text)).text = visible(text)


def _add_up(element: ElementTree.Element) -> None:
    element.set("tests", str(len(list(element.iter("testcase")))))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(len(list(element.iter(tag)))))
