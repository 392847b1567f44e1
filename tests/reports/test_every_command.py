"""Every format of every command: what a reader sees, what a name can do to it, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest
from jsonschema import Draft202012Validator
from markdown_it import MarkdownIt
from support import ROOT, Refused
from support.models.documents import documents
from support.models.outcomes import CREATED, HOSTILE
from support.models.small_models import ONE_LAYER, built
from support.readers.documents import changed, general, places
from support.readers.pages import page_of
from support.readers.workflow import read_log

from normswap.cli import command, main
from normswap.errors import ReportError
from normswap.reports import formats
from normswap.reports.document import COMMANDS, Document
from normswap.reports.formats import FORMATS, Format, render
from normswap.words import visible

PLAIN = "plain"
KINDS = list(documents(PLAIN))
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def writable(kind: str) -> list[str]:
    """The formats that have a place for what a command finds."""
    checks = COMMANDS[kind.partition(",")[0]].checks
    return [name for name, form in FORMATS.items() if checks or not form.checks]


EACH = [(kind, form) for kind in KINDS for form in writable(kind)]


def test_every_command_that_reports_is_here_and_takes_the_same_options() -> None:
    assert {kind.partition(",")[0] for kind in KINDS} == COMMANDS.keys() == command.commands.keys()
    for name in COMMANDS:
        options = {option for parameter in command.commands[name].params for option in parameter.opts}
        assert options >= {"--format", "--json", "--report"}, name


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(("kind", "form"), EACH)
def test_a_name_does_nothing(kind: str, form: str, name: str) -> None:
    text = render(form, documents(name)[kind], CREATED)
    assert text.encode("utf-8").decode("utf-8") == text
    assert visible(text.replace("\n", "")) == text.replace("\n", ""), "a character acts or hides"
    harmless = render(form, documents("\u05e9")[kind], CREATED)  # a letter that is written from right to left
    if form != "text" or len(name) < 60:  # a long name takes several lines of a table
        assert shape(form, text) == shape(form, harmless)


def shape(form: str, text: str) -> Any:
    """What a report consists of, whatever the names in it are."""
    if form == "html":
        page = page_of(text)
        return page.tags, [(tag, name) for tag, name, _ in page.attributes]
    if form == "markdown":
        return Counter(page_of(MARKDOWN.render(text)).tags)
    if form == "junit":
        return [element.tag for element in ElementTree.fromstring(text).iter()]
    if form == "github":
        return [(found.name, found.properties.keys()) for found in read_log(text)[1]]
    if form == "json":
        return {tuple("*" for _ in place) for place in places(json.loads(text))}
    return len(text.splitlines())


ACTING = ["verdict", "command", "command on a line of its own", "separators"]


@pytest.mark.parametrize(
    "name", [*map(HOSTILE.__getitem__, ACTING), "PASS: x", "FAIL: x", f"{'x' * 150}::error::{'y' * 150}"]
)
@pytest.mark.parametrize("form", ["text", "github"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_name_begins_a_line_with_a_verdict_or_a_command(kind: str, form: str, name: str) -> None:
    def beginnings(text: str) -> list[str]:
        found = (re.match(r"\s*(PASS:|FAIL:|TROUBLE:|::\w+|##\[)", line) for line in text.splitlines())
        return [match[1] for match in found if match]

    expected = beginnings(render(form, documents(PLAIN)[kind], CREATED))
    assert beginnings(render(form, documents(name)[kind], CREATED)) == expected


@pytest.mark.parametrize(("kind", "form"), EACH)
def test_a_reader_sees_the_verdict(kind: str, form: str) -> None:
    document = documents(PLAIN)[kind]
    text = render(form, document, CREATED)
    if form == "json":
        assert json.loads(text)["verdict"] == document.verdict
        return
    text = re.sub(r"\\(.)", r"\1", re.sub(r"\s+", " ", page_of(text).text if form == "html" else text))
    for section in document.sections:
        if (form, section.word) != ("text", "0 BatchNorm layers"):  # whose remarks say what there is instead
            assert section.verdict.partition(";")[0] in text
        assert all(warning.rpartition(": ")[2] in text for warning in section.warnings)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if writable(kind) != list(FORMATS)])
def test_a_format_of_checks_alone_is_refused_with_what_will_do(kind: str) -> None:
    document = documents(PLAIN)[kind]
    with pytest.raises(ReportError, match=r"junit holds only that; choose one of text, json, markdown, html, github"):
        render("junit", document)


# JSON: one envelope, a schema for each command.

SCHEMAS = {
    name: json.loads(files("normswap.reports.schemas").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    for name in {command.schema for command in COMMANDS.values()}
}
ENVELOPE = ("version", "normswap", "created", "command", "verdict", "exit_code")


def validator(kind: str) -> Draft202012Validator:
    schema = SCHEMAS[COMMANDS[kind.partition(",")[0]].schema]
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_the_schemas_share_one_envelope() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
        assert tuple(schema["properties"])[: len(ENVELOPE)] == ENVELOPE
        assert schema["required"][: len(ENVELOPE)] == list(ENVELOPE)
        shared = {key: schema["properties"][key] for key in ENVELOPE[:3]}
        assert shared == {key: SCHEMAS["verify"]["properties"][key] for key in ENVELOPE[:3]}
    named = {name for schema in SCHEMAS.values() for name in schema["properties"]["command"]["enum"]}
    assert named == COMMANDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_document_has_the_envelope_and_is_valid(kind: str) -> None:
    document = documents("a name")[kind]
    found = json.loads(render("json", document, CREATED))
    validator(kind).validate(found)
    assert tuple(found)[: len(ENVELOPE)] == ENVELOPE
    assert (found["command"], found["exit_code"]) == (kind.partition(",")[0], document.exit_code)
    validator(kind).validate(found | {"new": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_without_a_key_or_with_a_value_of_another_type_is_rejected(kind: str) -> None:
    found = json.loads(render("json", documents("a name")[kind], CREATED))
    valid = validator(kind).is_valid
    for place in {general(place): place for place in places(found) if place}.values():
        if any(part in ("left", "forms", "parameters", "samples") for part in place[:-1]):
            continue  # keys that are names of layers
        if isinstance(place[-1], str) and place[-1] != "form":  # which --for alone gives
            assert not valid(changed(found, place)), place
        if place != ("samples",):
            assert not valid(changed(found, place, {"a": {}})), place
        assert not valid(changed(found, place, [[]])), place


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("inspect", {"to": "instance"}),
        ("inspect, to instance", {"to": None}),
        ("inspect", {"exit_code": 2}),
        ("recalibrate", {"samples": {"a": 1}}),
        ("recalibrate", {"variance": "either"}),
        ("recalibrate", {"exit_code": 2}),
        ("recalibrate, shard", {"samples": 3}),
        ("recalibrate, shard", {"shard": "1"}),
        ("recalibrate, shard", {"written": None}),
        ("diagnose", {"advice": "pray"}),
        ("diagnose", {"exit_code": 1}),
        ("convert", {"command": "diagnose"}),
    ],
)
def test_a_document_with_a_value_that_is_never_written_is_rejected(kind: str, wrong: dict[str, Any]) -> None:
    found = json.loads(render("json", documents("a name")[kind], CREATED))
    assert not validator(kind).is_valid(found | wrong)


# A format is one function and one entry.


def test_a_format_is_one_function_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_one_line(document: Document, created: object) -> str:
        return visible(f"{document.command} {document.exit_code}: {document.verdict}") + "\n"

    module = ModuleType("normswap.reports.formats.line")
    monkeypatch.setitem(vars(module), "render", in_one_line)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(formats.FORMATS, "line", Format(".line"))
    for kind, document in documents(PLAIN).items():
        assert render("line", document) == f"{kind.partition(',')[0]} {document.exit_code}: {document.verdict}\n"


# The command line.

LOWLIGHT, IMAGES = (str(ROOT / "fixtures" / name) for name in ("lowlight.onnx", "lowlight_images.npz"))
COMMAND_LINES = {
    "inspect": ["inspect", "model.onnx"],
    "convert": ["convert", "model.onnx", "--to", "instance", "-o", "out.onnx", "--force"],
    "verify": ["verify", "model.onnx", "model.onnx", "--to", "instance"],
    "diagnose": ["diagnose", LOWLIGHT, "--inputs", IMAGES],
    "recalibrate": ["recalibrate", LOWLIGHT, "--inputs", IMAGES, "-o", "out.onnx", "--force"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1750000000")
    onnx.save(built(ONE_LAYER), "model.onnx")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_writes_every_report_that_makes_sense(name: str, folder: Path, capsys: Any) -> None:
    paths = {form: f"report{FORMATS[form].suffix}" for form in writable(name) if FORMATS[form].suffix}
    code = main([*COMMAND_LINES[name], "--json", *(word for path in paths.values() for word in ("--report", path))])
    printed = capsys.readouterr().out
    assert json.loads(printed)["exit_code"] == code == (1 if name == "verify" else 0)
    assert Path("report.json").read_text(encoding="utf-8") == printed
    assert f"normswap {name}" in Path("report.html").read_text(encoding="utf-8").replace("<b>", "")
    assert all(Path(path).stat().st_size for path in paths.values())


@pytest.mark.parametrize("name", [name for name in COMMANDS if not COMMANDS[name].checks])
def test_a_command_refuses_what_makes_no_sense_before_any_work(name: str, folder: Path, refused: Refused) -> None:
    for given in (["--format", "junit"], ["--report", "r.xml"]):
        line = refused(name, "lost.onnx", *(["--inputs", "lost.npz"] if name == "diagnose" else []), *given)
        assert line.startswith(f"normswap: {name} checks nothing that passes or fails, and a report as junit")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_report_replaces_nothing_that_is_read(name: str, folder: Path, refused: Refused) -> None:
    Path("model.onnx").rename("model.json")
    more = {"verify": ["x.onnx", "--to", "instance"], "convert": ["--to", "instance", "-o", "out.onnx"]}
    more |= {"diagnose": ["--inputs", "lost.npz"], "recalibrate": ["--inputs", "lost.npz", "-o", "out.onnx"]}
    line = refused(name, "model.json", *more.get(name, []), "--report", "./model.json")
    assert line == "normswap: model.json: is one of the files that are read; choose another path for the report\n"


def test_a_terminal_has_its_width_and_its_styles(folder: Path) -> None:
    from normswap.reports.formats import text

    document = documents("x" * 60)["inspect"]
    wide, narrow = text.written(document), text.written(document, 60)
    assert max(map(len, narrow.splitlines()[:3])) <= 60 < max(map(len, wide.splitlines()[:3]))
    styled = text.written(document, styled=True)
    assert "\x1b[1m" in styled
    assert re.sub(r"\x1b\[[\d;]*m", "", styled).split() == wide.split()
    assert "\x1b" not in wide
