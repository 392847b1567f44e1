"""The settings file: what it may say, what is wrong with it in one sentence, and how its pairs are verified."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from support import Refused
from support.models.small_models import ONE_LAYER, built

import normswap
from normswap import SettingsError
from normswap.backends.torch.factory import build
from normswap.cli import main
from normswap.cli.pair import Pair
from normswap.cli.settings import keys_of_pairs, outcomes_of, read_settings
from normswap.cli.settings_file import FILES
from normswap.norms import all_parameters
from normswap.options import Kind, Tolerance, option_of

GOOD = '[[pairs]]\nbefore = "model.onnx"\nafter = "instance.onnx"\nto = "instance"\n'
WRONG = '[[pairs]]\nbefore = "model.onnx"\nafter = "model.onnx"\nto = "instance"\n'
LOST = '[[pairs]]\nbefore = "model.onnx"\nafter = "lost.onnx"\nto = "instance"\n'
FACTORY = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The one-layer model, converted."""
    path = tmp_path_factory.mktemp("converted") / "instance.onnx"
    normswap.convert(built(ONE_LAYER), to="instance", output=path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted: bytes) -> Path:
    """Work in a repository of its own, with a model and its conversion."""
    work = tmp_path / "work"
    for path in (work, work / ".git", work / "sub"):
        path.mkdir()
    monkeypatch.chdir(work)
    onnx.save(built(ONE_LAYER), "model.onnx")
    Path("instance.onnx").write_bytes(converted)
    return work


def as_project(text: str) -> str:
    """Move settings to where a pyproject.toml has them."""
    return "[tool.normswap]\n" + text.replace("[[pairs]]", "[[tool.normswap.pairs]]")


def write(text: str, path: str = "normswap.toml") -> Path:
    Path(path).write_text(as_project(text) if Path(path).name == "pyproject.toml" else text, encoding="utf-8")
    return Path(path)


VERDICTS: dict[str, tuple[str, int]] = {
    "equal": (GOOD, 0),
    "different": (WRONG, 1),
    "in trouble": (LOST, 2),
    "different, equal": (WRONG + GOOD, 1),
    "in trouble, different, equal": (LOST + WRONG + GOOD, 2),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("text", "code"), VERDICTS.values(), ids=VERDICTS)
def test_the_exit_code_is_that_of_the_worst_pair(
    text: str, code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(text, name)
    assert main(["verify", "--json"]) == code
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["exit_code"] == code
    count = text.count("[[pairs]]")
    assert len(document["outcomes"]) == count, "one in trouble kept others from being verified"
    assert shown.err.splitlines()[0] == f"normswap: {count} pair{'s' * (count > 1)} in {name}"
    assert [outcome["ok"] for outcome in document["outcomes"]][-1] is (count > 1 or code == 0)


def test_several_pairs_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    write(LOST + WRONG.replace("[[pairs]]", '[[pairs]]\nname = "forgotten"') + GOOD)
    assert main(["verify"]) == 2
    shown = capsys.readouterr()
    assert "== forgotten: model.onnx -> model.onnx, instance" in shown.out
    assert shown.out.splitlines()[-1] == "3 pairs: 1 equal, 1 different, 1 in trouble"
    assert shown.err.splitlines()[1].startswith("normswap: lost.onnx: lost.onnx: ")


def test_reports_hold_all_pairs() -> None:
    write(GOOD + WRONG + LOST)
    assert main(["verify", "--report", "all.xml", "--report", "all.md"]) == 2
    suites = ElementTree.parse("all.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["instance.onnx", "model.onnx", "lost.onnx"]
    assert Path("all.md").read_text(encoding="utf-8").startswith("## normswap: 3 pairs: 1 equal, 1 different, 1 in")


def test_a_bug_that_one_pair_meets_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(before: Any, after: Any, *args: Any, **options: Any) -> normswap.Report:
        if after == "model.onnx":
            raise ZeroDivisionError("by zero")
        return normswap.verify(before, after, *args, **options)

    monkeypatch.setattr("normswap.cli.pair.verify", verify)
    write(WRONG + GOOD)
    assert main(["verify", "--json"]) == 2
    shown = capsys.readouterr()
    broken, good = json.loads(shown.out)["outcomes"]
    assert broken["trouble"].startswith("internal error, ZeroDivisionError: by zero; this is a bug")
    assert good["ok"]
    monkeypatch.setenv("NORMSWAP_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["verify"])


# ---------------------------------------------------------------------------------------------- where it is found


def test_the_nearest_file_above_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(GOOD)
    Path("sub/pyproject.toml").write_text("[project]\nname = 'without settings of normswap'\n")
    Path("sub/deep").mkdir()
    monkeypatch.chdir("sub/deep")
    assert main(["verify", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"normswap: 1 pair in {folder / 'normswap.toml'}\n"
    (outcome,) = json.loads(shown.out)["outcomes"]
    assert outcome["name"] == "instance.onnx"
    assert outcome["after"] == str(folder / "instance.onnx")
    write(WRONG, "../pyproject.toml")
    for name in ("model.onnx", "instance.onnx"):
        (folder / "sub" / name).symlink_to(folder / name)
    assert main(["verify"]) == 1


def test_a_file_that_is_named_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    write(WRONG)
    write(GOOD.replace('"model', '"../model').replace('"instance.', '"../instance.'), "sub/release.toml")
    assert main(["verify", "--settings", "sub/release.toml", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "normswap: 1 pair in sub/release.toml\n"
    assert json.loads(shown.out)["outcomes"][0]["before"] == "sub/../model.onnx"


def test_what_is_above_the_repository_is_not_read(folder: Path, refused: Refused) -> None:
    write(GOOD, "../normswap.toml")
    assert f"is in {folder} or above it" in refused("verify")
    (folder / ".git").rmdir()
    assert main(["verify"]) == 2  # found, and its models are not there
    for name in ("model.onnx", "instance.onnx"):
        (folder / name).rename(folder.parent / name)
    assert main(["verify"]) == 0


def test_two_files_in_one_folder_are_refused(refused: Refused) -> None:
    for name in FILES:
        write(GOOD, name)
    assert "normswap.toml and pyproject.toml both have settings" in refused("verify")


def test_settings_are_not_read_where_two_models_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("normswap.toml").write_text("no TOML")
    assert main(["verify", "model.onnx", "instance.onnx", "--to", "instance"]) == 0
    assert capsys.readouterr().err == ""


def test_a_factory_is_found_from_the_folder_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sub/settings_factory.py").write_text(FACTORY)
    sys.path.insert(0, "sub")
    try:
        module = build("settings_factory:build")
        normswap.convert(module.eval(), "instance", shapes={"input": (2, 3, 8, 8)}, output="sub/made.onnx")
    finally:
        sys.path.remove("sub")
        del sys.modules["settings_factory"]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    path = [*sys.path]
    for elsewhere in ("settings_factory.py", "sub/deep/settings_factory.py"):
        Path(elsewhere).parent.mkdir(exist_ok=True)
        Path(elsewhere).write_text("raise ValueError('the wrong one')")
    write('[[pairs]]\nbefore = "settings_factory:build"\nafter = "made.onnx"\nto = "instance"\n', "sub/normswap.toml")
    try:
        for start in (".", "sub/deep"):
            monkeypatch.chdir(start)
            settings = ["--settings", "sub/normswap.toml"] if start == "." else []
            assert main(["verify", *settings]) == 0, capsys.readouterr()
        assert sys.path == path
    finally:
        sys.modules.pop("settings_factory", None)


# --------------------------------------------------------------------------------------------- what it may say


SAMPLES: Mapping[Kind, tuple[str, Any]] = {  # kind of an option -> a value as a file has it, and as a Pair has it
    "text": ('"a name"', "a name"),
    "target": ('"blend"', "blend"),  # which takes every parameter that there is
    "model": ('"a.onnx"', "a.onnx"),
    "path": ('"a.npz"', "a.npz"),
    "names": ('["a*", "b"]', ("a*", "b")),
    "flag": ("true", True),
    "whole": ("7", 7),
    "margin": ("32", Tolerance(margin=32.0)),
    "shapes": ("{ x = [1, 3, 8, 8] }", {"x": (1, 3, 8, 8)}),
    "scale": ('"-1,1"', "-1,1"),
    "size": ("[256, 192]", (256, 192)),
}


def test_every_option_of_a_pair_has_a_key() -> None:
    kinds = {declared.name: option_of(declared).kind for declared in fields(Pair)}
    samples = {name: SAMPLES[kind] for name, kind in kinds.items() if kind is not None}
    assert kinds.keys() - samples.keys() == {"progress", "parameters"}, "an option for Python alone"
    text = "".join(f"{name.replace('_', '-')} = {value}\n" for name, (value, _) in samples.items())
    values = {name: value for name, (_, value) in samples.items()}
    given: dict[str, dict[str, Any]] = {"blend": {"prior": 32.0, "over": "batch"}, "group": {"groups": 4}}
    for to, parameters in given.items():
        of_target = "".join(f"{name} = {value!r}\n" for name, value in parameters.items())
        lines = text.replace(f"to = {samples['to'][0]}\n", f'to = "{to}"\n')
        (pair,) = read_settings(write(f"[[pairs]]\n{lines}{of_target}")).pairs
        assert pair == Pair(**values | {"to": to}, parameters=parameters)
    assert all_parameters().keys() == {name for parameters in given.values() for name in parameters}


def test_what_is_not_said_is_as_on_the_command_line() -> None:
    (pair,) = read_settings(write(GOOD)).pairs
    assert pair == Pair("model.onnx", "instance.onnx", "instance", name="instance.onnx")


def test_pairs_inherit_defaults_and_override_them() -> None:
    other = GOOD.replace('to = "instance"', 'name = "other"\nto = "population"\nseed = 4\ntolerance = 2.5')
    text = 'to = "batch-stat"\nseed = 3\ntolerance = 8\n' + GOOD.replace('to = "instance"\n', "") + other
    inherits, overrides = read_settings(write(text)).pairs
    assert (inherits.to, inherits.seed, inherits.tolerance) == ("batch-stat", 3, Tolerance(margin=8.0))
    assert (overrides.to, overrides.seed, overrides.tolerance) == ("population", 4, Tolerance(margin=2.5))


def test_parameters_are_inherited_by_the_pairs_whose_target_takes_them() -> None:
    pairs = "".join(GOOD.replace('to = "instance"', f'name = "{to}"\nto = "{to}"') for to in ("blend", "instance"))
    blend, instance = read_settings(write('prior = 0\nover = "batch"\n' + pairs)).pairs
    assert (blend.to, blend.parameters) == ("blend", {"prior": 0.0, "over": "batch"})
    assert (instance.to, instance.parameters) == ("instance", {})
    (own,) = read_settings(write('to = "blend"\nprior = 16\n' + GOOD.replace('to = "instance"', "prior = 2.5"))).pairs
    assert own.parameters == {"prior": 2.5}


def test_absolute_paths_stay_and_relative_ones_are_of_the_folder(folder: Path) -> None:
    model = folder / "model.onnx"
    text = f"[[pairs]]\nbefore = '{model}'\nafter = 'a.onnx'\ninputs = 'x.npz'\nto = 'instance'\n"
    (pair,) = read_settings(write(text, "sub/normswap.toml")).pairs
    assert (pair.before, pair.after, pair.inputs) == ("model.onnx", "sub/a.onnx", "sub/x.npz")
    assert pair.name == "a.onnx"


BAD: dict[str, tuple[str, str]] = {  # what the file holds, and what the sentence says
    "no TOML": ("pairs = [", "normswap.toml: is not valid TOML: "),
    "no pairs": ('to = "instance"', "expected pairs as tables, each under [[pairs]], found nothing"),
    "an empty list": ("pairs = []", "normswap.toml: lists no pairs"),
    "one table": ("[pairs]\nbefore = 'a'", "each under [[pairs]], found a table"),
    "a list of words": ("pairs = ['a']", "each under [[pairs]], found ['a']"),
    "as in pyproject.toml": (as_project(GOOD), "here its content is at the top: [[pairs]]"),
    "unknown at the top": ("sed = 1\n" + GOOD, "normswap.toml: unknown key 'sed'; the nearest is 'seed'"),
    "no default": (
        "only = ['a']\n" + GOOD,
        "only belongs to one pair and has no default; those that have are to, prior, over, groups, seed",
    ),
    "unknown": (GOOD + "wieghts = 'w'", "pair 1: unknown key 'wieghts'; the nearest is 'weights'"),
    "unknown, far off": (GOOD + "zzzz = 'w'", "pair 1: unknown key 'zzzz'; known are before, after, to, scale"),
    "with an underscore": (GOOD + "after_weights = 'w'", "'after_weights'; the nearest is 'after-weights'"),
    "called otherwise": (GOOD.replace("to =", "target ="), "unknown key 'target'; it is called 'to' here"),
    "as the option": (GOOD + "no-end-to-end = true", "unknown key 'no-end-to-end'; it is called 'end-to-end'"),
    "before is missing": (GOOD.replace('before = "model.onnx"', ""), "pair 1: before is missing"),
    "after is missing": (GOOD.replace('after = "instance.onnx"', 'name = "n"'), "pair 1 (n): after is missing"),
    "to is missing": (GOOD.replace('to = "instance"', ""), "pair 1: to is missing"),
    "unknown target": (GOOD.replace('"instance"', '"instanse"'), "to: unknown target 'instanse'; the nearest is 'inst"),
    "unknown default target": ('to = "x"\n' + GOOD, "normswap.toml: to: unknown target 'x'"),
    "the second pair": (WRONG + GOOD + "seed = -1", "pair 2: seed: expected a whole number, 0 or more, found -1"),
    "a parameter of another target": (
        GOOD + "prior = 16",
        "pair 1: prior: belongs to the target blend",
    ),
    "a parameter is missing": (GOOD.replace("instance", "blend"), "pair 1: prior: the target blend needs one"),
    "a prior below 0": (GOOD + "prior = -1", "pair 1: prior: expected a number, 0 or more, found -1"),
    "a prior of all": (GOOD.replace('"instance"', '"blend"') + "prior = 1e13", "use the target population"),
    "over what": (GOOD + "over = 'sampel'", "pair 1: over: expected 'sample' or 'batch', found 'sampel'"),
    "two of one name": (GOOD + GOOD, "pairs 1 and 2 are both called 'instance.onnx'; give each a name"),
    "three of one name": (GOOD + 3 * WRONG.replace("[[pairs]]", "[[pairs]]\nname='x'"), "pairs 2 and 3 and 4 are"),
    "an empty name": (GOOD + "name = ''", "pair 1 (): name: expected a string, found ''"),
    "a number for a path": (GOOD.replace('"model.onnx"', "3"), "before: expected a string, found 3"),
    "a word for globs": (GOOD + "only = 'a*'", "only: expected a list of strings, found 'a*'"),
    "a word for a flag": (GOOD + "end-to-end = 'no'", "end-to-end: expected true or false, found 'no'"),
    "a flag for a number": (GOOD + "seed = true", "seed: expected a whole number, 0 or more, found True"),
    "tolerance of nothing": (GOOD + "tolerance = 0", "tolerance: expected a number above 0, found 0"),
    "tolerance of all": (GOOD + "tolerance = inf", "tolerance: expected a number above 0, found inf"),
    "no number": (GOOD + "tolerance = nan", "tolerance: expected a number above 0, found nan"),
    "a number beyond all": (GOOD + f"tolerance = 1{'0' * 400}", "tolerance: expected a number above 0, found 1000"),
    "shapes as on the command line": (GOOD + "shapes = ['x=1x3']", "shapes: expected a table of shapes, as { x = [1"),
    "a shape of nothing": (GOOD + "shapes = { x = [0, 3] }", "shapes: expected a table of shapes"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_bad_settings_are_one_sentence(text: str, words: str, refused: Refused) -> None:
    write(text)
    said = refused("verify")
    assert words in said
    assert said.startswith("normswap: normswap.toml: ")


def test_bad_settings_in_a_project_name_its_table(refused: Refused) -> None:
    Path("pyproject.toml").write_text("[tool.normswap]\n")
    assert "each under [[tool.normswap.pairs]], found nothing" in refused("verify")
    Path("pyproject.toml").write_text("tool.normswap = 3\n")
    assert "expected [tool.normswap] to be a table, found 3" in refused("verify")
    Path("pyproject.toml").write_text("tool = 3\n")
    assert "no pairs to verify" in refused("verify")
    assert "has no [tool.normswap]" in refused("verify", "--settings", "pyproject.toml")
    Path("pyproject.toml").write_bytes(b"\xff")
    assert "is not valid TOML: 'utf-8' codec" in refused("verify")
    assert "cannot be read: No such file" in refused("verify", "--settings", "lost.toml")
    assert "cannot be read: Is a directory" in refused("verify", "--settings", "sub")


VALUES = [
    *("3", "-1", "1.5", "1e400", "nan", "inf", "true", '"x"', '""', '"\\u0000"', "[]", "[1]", '["a"]', "[[]]", "{}"),
    *("{ x = [1] }", "{ x = 1 }", "1979-05-27", "07:32:00", "[{ a = 1 }]", "1" + "0" * 400),
]


@pytest.mark.parametrize("key", keys_of_pairs())
def test_whatever_a_key_is_given_it_is_read_or_refused(key: str) -> None:
    others = "".join(f"{name} = 'instance'\n" for name in ("before", "after", "to") if name != key)
    said = []
    for value in VALUES:
        path = write(f"[[pairs]]\n{others}{key} = {value}\n")
        try:
            read_settings(path)
        except SettingsError as error:
            said.append(str(error))
    assert len(said) >= len(VALUES) / 2, "most of those fit no key"
    assert all(sentence.startswith(f"{path}: pair 1") and f": {key}: " in sentence for sentence in said)


# ------------------------------------------------------------------------------------------------ options beside it


OF_ONE_PAIR = [
    *("--to instance", "--weights w.pth", "--after-weights w.pth", "--only a*", "--skip a*", "--allow-refusals"),
    *("--drop-statistics", "--inputs x.npz", "--shape x=1x3", "--seed 0", "--no-end-to-end", "--end-to-end"),
]


@pytest.mark.parametrize("option", OF_ONE_PAIR)
def test_an_option_of_one_pair_is_refused_beside_settings(option: str, refused: Refused) -> None:
    write(GOOD)
    said = refused("verify", *option.split())
    assert "is for BEFORE and AFTER; without them the settings file has it for each pair" in said
    assert option.split()[0] in said


@pytest.mark.parametrize("option", ["--settings normswap.toml", "--pair a"])
def test_an_option_of_settings_is_refused_beside_a_pair(option: str, refused: Refused) -> None:
    write(GOOD)
    said = refused("verify", "model.onnx", "instance.onnx", "--to", "instance", *option.split())
    assert f"{option.split()[0]} does nothing with BEFORE and AFTER" in said


def test_half_a_pair_is_refused(refused: Refused) -> None:
    write(GOOD)
    assert "Missing argument 'AFTER'; give both models, or neither" in refused("verify", "model.onnx")
    assert "Missing option '--to'" in refused("verify", "model.onnx", "instance.onnx")


@pytest.mark.parametrize(
    ("globs", "names"),
    [(["*"], "abc"), (["a"], "a"), (["[bc]"], "bc"), (["c", "a"], "ac")],
)
def test_pairs_are_chosen_by_name(globs: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("".join(GOOD.replace("[[pairs]]", f"[[pairs]]\nname = '{name}'") for name in "abc"))
    options = [word for glob in globs for word in ("--pair", glob)]
    assert main(["verify", "--json", *options]) == 0
    shown = capsys.readouterr()
    assert "".join(outcome["name"] for outcome in json.loads(shown.out)["outcomes"]) == names
    of = "" if len(names) == 3 else f"{len(names)} of "
    assert shown.err == f"normswap: {of}3 pairs in normswap.toml\n"


def test_a_glob_that_matches_no_pair_is_refused(refused: Refused) -> None:
    write(GOOD)
    said = refused("verify", "--pair", "instance.onx", "--pair", "*")
    assert "normswap.toml: no pair matches 'instance.onx'; the nearest is 'instance.onnx'" in said


# ------------------------------------------------------------------------------------------------------- tolerance


def test_tolerance_is_a_multiple_of_the_noise_floor_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    bounds = {}
    for tolerance in (16, 1600):
        write(GOOD + f"tolerance = {tolerance}\n")
        assert main(["verify", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)["outcomes"][0]["report"]
        bounds[tolerance] = max(check["bound"] for check in report["checks"] if check["witness"] == "end to end")
        said = "outputs may be off by 1600 times the noise floor, as requested; the default is 16"
        assert (said in report["notes"]) is (tolerance == 1600)
    assert 20 < bounds[1600] / bounds[16] <= 100


def test_a_tolerance_that_would_do_nothing_is_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    write(GOOD + "tolerance = 32\nend-to-end = false\n")
    assert main(["verify"]) == 2
    assert "the tolerance applies to the end-to-end comparison only" in capsys.readouterr().err


def test_inputs_are_those_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("x.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    write(GOOD + "inputs = 'x.npz'\n")
    assert main(["verify"]) == 0
    assert "inputs      given: x.npz" in capsys.readouterr().out


def test_progress_says_which_pair() -> None:
    stages = []
    settings = read_settings(write(GOOD))
    outcomes_of(settings, lambda stage, done, total: stages.append(stage))
    assert "instance.onnx: probing layers" in stages
    assert all(stage.startswith("instance.onnx: ") for stage in stages)
