"""JUnit XML, as CI servers read it: a suite for each model or pair of models, a case for each check.

References:
    The format has no standard; elements and attributes are those of testmoapp/junitxml, which the usual viewers
    (Jenkins, GitLab, Azure, pytest's own output) agree on.
"""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree

from normswap.reports.document import Case, Document, Section
from normswap.words import visible, written

__all__ = ["render"]


def render(document: Document, created: datetime) -> str:
    """Return a document as JUnit XML."""
    suites = ElementTree.Element("testsuites", name="normswap")
    for section in document.sections:
        suites.append(_suite(section, created))
    _add_up(suites)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _suite(section: Section, created: datetime) -> ElementTree.Element:
    stamp = created.strftime("%Y-%m-%dT%H:%M:%S")
    suite = ElementTree.Element("testsuite", name=visible(section.name), timestamp=stamp, time="0")
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in {**section.properties, "verdict": section.verdict}.items():
        ElementTree.SubElement(properties, "property", name=key, value=visible(value))
    for case in section.cases:
        _add(suite, section, case)
    if section.log:
        ElementTree.SubElement(suite, "system-out").text = written(section.log)
    _add_up(suite)
    return suite


def _add(suite: ElementTree.Element, section: Section, case: Case) -> None:
    classname = visible(f"{section.name}.{case.group}")
    element = ElementTree.SubElement(suite, "testcase", classname=classname, name=visible(case.name), time="0")
    message = visible(case.message)
    if case.state == "held":
        ElementTree.SubElement(element, "system-out").text = message
    else:
        ElementTree.SubElement(element, case.state, message=message).text = message


def _add_up(element: ElementTree.Element) -> None:
    element.set("tests", str(len(list(element.iter("testcase")))))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(len(list(element.iter(tag)))))
