"""--format and --report: what is printed, which files are written, and what is refused before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from support import Refused
from support.models.small_models import ONE_LAYER, built, tree

import normswap
from normswap.cli import main
from normswap.cli import pair as pairs
from normswap.reports.formats import FORMATS, render
from normswap.reports.formats import json as json_format
from normswap.reports.verification import verification

FILES = {name: f"report{form.suffix}" for name, form in FORMATS.items() if form.suffix}
VERIFY = ["verify", "model.onnx", "converted.onnx", "--to", "instance"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own that holds one small model and its conversion."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1750000000")
    onnx.save(built(ONE_LAYER), "model.onnx")
    normswap.convert("model.onnx", "instance", output="converted.onnx")
    return folder


def reports(paths: list[str]) -> list[str]:
    return [word for path in paths for word in ("--report", path)]


def test_every_report_is_written_beside_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(tree(folder))
    assert main([*VERIFY, *reports([*FILES.values()])]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS: equal to")
    assert set(tree(folder)) == before | set(FILES.values())
    for name, path in FILES.items():
        assert main([*VERIFY, "--format", name]) == 0
        assert capsys.readouterr().out == Path(path).read_text()
        assert b"\r" not in Path(path).read_bytes()


def test_github_is_for_a_log_alone(capsys: pytest.CaptureFixture[str], refused: Refused) -> None:
    assert main([*VERIFY, "--format", "github"]) == 0
    assert "::notice file=converted.onnx,title=normswap" in capsys.readouterr().out
    assert "no report format has the suffix '.github'" in refused(*VERIFY, "--report", "x.github")


def test_json_is_short_for_format_json(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for option in (["--json"], ["--format", "json"]):
        assert main([*VERIFY, *option]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert json.loads(printed[0])["version"] == json_format.VERSION


def test_a_failed_comparison_is_reported_and_the_code_stays(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", "model.onnx", "model.onnx", "--to", "instance", *reports(["r.html", "r.json"])]
    assert main(command) == 1
    assert "FAIL" in Path("r.html").read_text()
    assert json.loads(Path("r.json").read_text())["exit_code"] == 1


@pytest.mark.parametrize("command", ["verify model.onnx lost.onnx", "convert lost.onnx -o out.onnx"])
def test_trouble_is_reported_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--to", "instance", *reports([*FILES.values()])]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("normswap: lost.onnx: ")
    (outcome,) = json.loads(Path("report.json").read_text())["outcomes"]
    assert (outcome["report"], outcome["ok"], outcome["written"]) == (None, False, None)
    assert f"normswap: {outcome['trouble']}\n" == shown.err
    assert all("lost.onnx" in Path(path).read_text() for path in FILES.values())


def test_convert_reports_what_it_wrote() -> None:
    assert main(["convert", "model.onnx", "--to", "instance", "-o", "out.onnx", "--report", "r.json"]) == 0
    (outcome,) = json.loads(Path("r.json").read_text())["outcomes"]
    assert (outcome["name"], outcome["before"], outcome["written"]) == ("out.onnx", "model.onnx", "out.onnx")


def test_a_report_replaces_the_last_one() -> None:
    for other, code in (("model.onnx", 1), ("converted.onnx", 0)):
        assert main(["verify", "model.onnx", other, "--to", "instance", "--report", "R.HTML"]) == code
        assert ("FAIL" in Path("R.HTML").read_text()) is bool(code)


def test_the_same_files_and_seed_give_the_same_reports() -> None:
    Path("first").mkdir()
    Path("second").mkdir()
    for into in ("first", "second"):
        code = main([*VERIFY, *reports([f"{into}/{path}" for path in FILES.values()])])
        assert code == 0
    assert tree(Path("first")) == tree(Path("second"))


WRONG = {  # reports that are asked for, and the sentence
    "no suffix": (["report"], "report: no report format has the suffix ''; known are .txt (text), .json (json), "),
    "unknown suffix": (["r.pdf"], "r.pdf: no report format has the suffix '.pdf'; known are .txt (text)"),
    "twice": (["r.html", "r.html"], "r.html: is asked for twice; name each report once"),
    "twice in other words": (["r.html", "../work/r.html"], "../work/r.html: is asked for twice"),
    "twice, by a link": (["link.html", "r.html"], "r.html: is asked for twice"),
    "no such folder": (["lost/r.html"], "lost/r.html: the folder lost does not exist; make it first"),
    "a folder": (["folder.html"], "folder.html: is a folder; give the name of the file to write"),
    "in a file": (["model.onnx/r.html"], "model.onnx/r.html: the folder model.onnx does not exist; make it first"),
    "one of them is wrong": (["good.html", "r.pdf"], "r.pdf: no report format has the suffix '.pdf'"),
}


@pytest.mark.parametrize("command", ["verify", "convert"])
@pytest.mark.parametrize(("paths", "sentence"), WRONG.values(), ids=WRONG)
def test_a_report_that_cannot_be_is_refused_before_any_work(
    paths: list[str], sentence: str, command: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder.html").mkdir()
    Path("link.html").symlink_to("r.html")
    for module, name in ((pairs, "verify"), (normswap, "convert")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("work was done"))
    arguments = VERIFY if command == "verify" else ["convert", "model.onnx", "--to", "instance", "-o", "out.onnx"]
    assert sentence in refused(*arguments, *reports(paths))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no folder here that even root cannot write to")
def test_a_folder_that_takes_no_files_is_refused_before_any_work(refused: Refused) -> None:
    line = refused(*VERIFY, "--report", "/proc/self/r.html")
    assert line.startswith("normswap: /proc/self/r.html: cannot be written: ")


def test_no_report_replaces_a_model(refused: Refused) -> None:
    Path("model.onnx").rename("model.json")
    assert "model.json: is one of the files that are read" in refused(
        "verify", "model.json", "converted.onnx", "--to", "instance", "--report", "./model.json"
    )
    assert "model.json: is one of the files that are read" in refused(
        "convert", "model.json", "--to", "instance", "-o", "out.onnx", "--report", "model.json"
    )


def test_an_unknown_format_names_the_known(refused: Refused) -> None:
    line = refused(*VERIFY, "--format", "yaml")
    assert all(name in line for name in FORMATS)


def test_a_build_time_that_is_none_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "verify", lambda *_, **__: pytest.fail("work was done"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert refused(*VERIFY).startswith("normswap: SOURCE_DATE_EPOCH: expected a time in seconds since 1970, found")


@pytest.mark.parametrize("missing", ["jinja2", "PIL"])
def test_without_the_extra_a_page_takes_one_sentence(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from normswap.cli import main; sys.exit(main())"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *VERIFY, *arguments], text=True, capture_output=True, timeout=60, check=False
        )

    for arguments in (["--report", "r.html"], ["--format", "html"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"normswap: a report as html takes {missing}; pip install 'normswap[html]'\n"
    assert not Path("r.html").exists()
    others = [path for path in FILES.values() if path != "report.html"]
    assert run(*reports(others)).returncode == 0  # no other format takes it


@pytest.mark.skipif(sys.platform == "darwin" or os.name == "nt", reason="names of files are text there")
def test_a_name_that_is_no_text_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"model-\xff.onnx")
    Path("model.onnx").rename(name)
    arguments = ["verify", name, "converted.onnx", "--to", "instance", *reports([*FILES.values()])]
    assert main(arguments) == 0
    for path in ("report.html", "report.xml", "report.md"):
        assert r"model-\udcff.onnx" in Path(path).read_text(encoding="utf-8")
    assert json.loads(Path("report.json").read_text())["outcomes"][0]["before"] == name


def test_formats_are_rendered_without_a_command_line() -> None:
    from normswap.cli.pair import Pair, outcome_of

    outcome = outcome_of(Pair("model.onnx", "converted.onnx", "instance"))
    assert all(render(name, verification([outcome])) for name in FORMATS)
