"""Files of exported programs: written whole or not at all, read without running what is in them."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from support.models.programs import PROGRAMS, quietly
from torch._export.serde.serialize import serialize

from normswap import NORMS
from normswap.backends import save
from normswap.backends.inputs import feeds_of
from normswap.backends.torch import program as torch_program
from normswap.backends.torch.program import ProgramModel
from normswap.errors import ModelReadError, ModelWriteError
from normswap.plan import make_plan
from normswap.verify import verify_conversion

BACKEND: Any = torch_program
Members: TypeAlias = dict[str, bytes]
Change: TypeAlias = Callable[[Members], None]

NAMES = ["eval", "train", "train, decomposed", "dynamic batch and sizes, train", "dynamic batch and sizes, decomposed",
         "bfloat16, train", "float64, decomposed", "branches", "structured", "mixed kinds, train, decomposed",
         "two names, train", "called twice, train, decomposed", "module signatures kept", "root module"]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in test_program.py
    yield tmp_path
    torch.set_num_threads(threads)


def rewritten(model: ProgramModel, to: str) -> tuple[ProgramModel, Any]:
    plan = make_plan(NORMS[to], torch_program.find(model))
    return torch_program.rewrite(model, plan), plan


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_comes_back(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = torch_program.load(PROGRAMS[name].build())
    save(torch_program, model, "before.pt2")
    before = torch_program.load("before.pt2")
    assert before.path == Path("before.pt2")
    assert [(x.name, x.role) for x in torch_program.find(before)] == [
        (x.name, x.role) for x in torch_program.find(model)
    ]
    for to in ("instance", "batch-stat"):
        after, plan = rewritten(model, to)
        with torch_program.writing(after, "after.pt2", force=True) as writing:
            assert writing.commit() == Path("after.pt2")
        # The file is the conversion of the program, and of the program's file.
        for one in (model, before):
            found = torch_program.load("after.pt2")
            feeds = feeds_of(torch_program, model, None, {}, 0) if one is model else None
            report = verify_conversion(BACKEND, one, found, plan, feeds=feeds)
            assert report.ok, report.to_text()
    assert sorted(os.listdir()) == ["after.pt2", "before.pt2"]
    assert capfd.readouterr() == ("", "")


def test_a_file_is_loaded_once_more_by_torch_itself() -> None:
    model = torch_program.load(PROGRAMS["dynamic batch and sizes, train"].build())
    after, _ = rewritten(model, "instance")
    save(torch_program, after, "after.pt2")
    loaded = quietly(lambda: torch.export.load("after.pt2"))
    (feed,) = feeds_of(torch_program, model, None, {}, 0)
    one, other = (
        torch_program.run(torch_program.load(program), feed.arrays, how="exported").outputs["output"]
        for program in (after.program, loaded)
    )
    np.testing.assert_array_equal(one, other)


# Writing.


def model() -> ProgramModel:
    return torch_program.load(PROGRAMS["train"].build())


def test_targets_that_must_not_be_written_are_refused() -> None:
    save(torch_program, model(), "there.pt2")
    source = torch_program.load("there.pt2")
    Path("folder.pt2").mkdir()
    os.symlink("there.pt2", "link.pt2")
    for path, force, words in (
        ("there.pt2", True, "is part of the model being converted"),
        ("link.pt2", True, "is part of the model being converted"),
        ("folder.pt2", True, "is a folder"),
        ("nowhere/a.pt2", False, "does not exist"),
        ("a.pth", False, r"expected a file name that ends in \.pt2"),
    ):
        with pytest.raises(ModelWriteError, match=words):
            torch_program.check_target(source, path, force=force)
        with pytest.raises(ModelWriteError, match=words):
            save(torch_program, source, path, force=force)
    with pytest.raises(ModelWriteError, match="exists already; replace it with --force"):
        save(torch_program, model(), "there.pt2")
    before = Path("there.pt2").read_bytes()
    save(torch_program, model(), "there.pt2", force=True)
    assert len(Path("there.pt2").read_bytes()) == len(before)


def test_what_is_not_committed_leaves_nothing() -> None:
    with torch_program.writing(model(), "a.pt2"):
        assert [name for name in os.listdir() if not name.startswith(".normswap-")] == []
    assert os.listdir() == []
    with pytest.raises(KeyboardInterrupt), torch_program.writing(model(), "a.pt2"):
        raise KeyboardInterrupt
    assert os.listdir() == []


def test_a_program_that_torch_cannot_serialize_is_one_sentence() -> None:
    program = model().program
    program.graph_module.meta["custom"] = {"object": object()}
    with pytest.raises(ModelWriteError, match=r"a\.pt2: torch cannot serialize this program: \w+: ") as caught:
        save(torch_program, ProgramModel(program), "a.pt2")
    assert "\n" not in str(caught.value)
    assert os.listdir() == []


# Damage.


def good() -> bytes:
    save(torch_program, model(), "good.pt2")
    data = Path("good.pt2").read_bytes()
    Path("good.pt2").unlink()
    return data


def refusal(path: str = "evil.pt2") -> str:
    with pytest.raises(ModelReadError) as caught:
        torch_program.load(path)
    said = str(caught.value)
    assert said.startswith(path) and "\n" not in said and len(said) < 600
    return said


def test_files_that_are_no_programs_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    data = good()
    Path("folder").mkdir()
    torch.save({"weight": torch.ones(3)}, "weights.pt2")
    with zipfile.ZipFile("zip.pt2", "w") as archive:
        archive.writestr("readme", "nothing here")
    contents = {"empty.pt2": b"", "text.pt2": b"not a zip", "half.pt2": data[: len(data) // 2], "tail.pt2": data[200:]}
    for name, content in contents.items():
        Path(name).write_bytes(content)
    assert "No such file" in refusal("missing.pt2")
    assert "Is a directory" in refusal("folder")
    for name in ("empty.pt2", "text.pt2", "half.pt2", "zip.pt2", "weights.pt2"):
        assert "expected an exported program, as torch.export.save writes it" in refusal(name), name
    assert refusal("tail.pt2")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere_is_one_sentence_or_does_no_harm(seed: int) -> None:
    data = bytearray(good())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 40):
        data[place] ^= int(rng.integers(1, 256))
    Path("evil.pt2").write_bytes(data)
    said = None
    try:
        loaded = torch_program.load("evil.pt2")
    except ModelReadError as error:
        said = str(error)
    assert "\n" not in said if said is not None else torch_program.find(loaded)


# What would run code. Each of these makes a folder called "ran" if it does.

CODE = "__import__('os').mkdir('ran')"


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def in_text(change: Callable[[Any], None]) -> Change:
    """Make a change of the program's JSON one of the archive."""

    def in_archive(members: Members) -> None:
        text = json.loads(members["models/model.json"])
        change(text)
        members["models/model.json"] = json.dumps(text).encode()

    return in_archive


def replaced(old: str, new: str) -> Change:
    """Change all occurrences of a text in the program's JSON."""

    def in_archive(members: Members) -> None:
        text = members["models/model.json"].decode()
        assert old in text
        members["models/model.json"] = text.replace(old, new).encode()

    return in_archive


def weights_config(members: Members) -> Any:
    return json.loads(members["data/weights/model_weights_config.json"])


def pickled_weight(members: Members) -> None:
    config = weights_config(members)
    config["config"]["conv.bias"]["use_pickle"] = True
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    members[f"data/weights/{config['config']['conv.bias']['path_name']}"] = saved(Evil())


def pickled_constant(members: Members) -> None:
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members["data/constants/model_constants_config.json"] = json.dumps({"config": {"c": payload}}).encode()
    members["data/constants/opaque_obj_0"] = pickle.dumps(Evil())


def custom_class(members: Members) -> None:
    payload = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    members["data/constants/model_constants_config.json"] = json.dumps({"config": {"c": payload}}).encode()
    members["data/constants/custom_obj_0"] = saved(Evil())


def examples(members: Members) -> None:
    members["data/sample_inputs/model.pt"] = saved(((Evil(),), {}))


def key_of_an_example(members: Members) -> None:
    members["data/sample_inputs/model.pt"] = saved(((torch.ones(2),), {f'x"+{CODE}+"': torch.ones(1)}))


def weights_of_old(members: Members) -> None:
    members["data/weights/model.pt"] = saved({"w": Evil()})


def constants_of_old(members: Members) -> None:
    members["data/constants/model.pt"] = saved({"w": Evil()})


def compiled(members: Members) -> None:
    members["data/aotinductor/model/model.so"] = b"\x7fELF"


def two_programs(members: Members) -> None:
    members["models/other.json"] = members["models/model.json"]


def guard(text: Any) -> None:
    text["guards_code"].append(f"{CODE} is None")


def guard_with_a_quote(text: Any) -> None:
    text["guards_code"].append(f"""L['x"+{CODE.replace("'", "")}+"'].size()[0] == 2""")


def size(text: Any) -> None:
    values = text["graph_module"]["graph"]["tensor_values"]
    values["x"]["sizes"][0] = {"as_expr": {"expr_str": CODE, "hint": None}}


def size_in_a_string(text: Any) -> None:
    size(text)
    values = text["graph_module"]["graph"]["tensor_values"]
    values["x"]["sizes"][0]["as_expr"]["expr_str"] = "Max('__import__(chr(111)+chr(115)).mkdir(chr(114))')"


def argument_name(text: Any) -> None:
    signature = text["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x={CODE}"]


def container(kind: str, context: Any) -> Callable[[Any], None]:
    def change(text: Any) -> None:
        leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
        spec = json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])
        text["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

    return change


DEFAULT = {"default_factory_module": "evil_module", "default_factory_name": "f", "dict_context": ["a"]}
ENUM = json.dumps([{"__enum__": True, "fqn": "evil_module:A", "name": "B"}])
QUOTED = json.dumps([f'x"+{CODE}+"'])

ATTACKS: dict[str, Change] = {
    "a pickled weight": pickled_weight,
    "a pickled constant": pickled_constant,
    "an object of a class of its own": custom_class,
    "pickled example inputs": examples,
    "the key of an example input": key_of_an_example,
    "weights as older versions wrote them": weights_of_old,
    "constants as older versions wrote them": constants_of_old,
    "a shared library": compiled,
    "the name of an input": replaced('{"name": "x"}', json.dumps({"name": f"x={CODE}"})),
    "the name of a parameter": replaced('"buffer_name": "bn.running_mean"', f'"buffer_name": "bn.x\\"+{CODE}+\\""'),
    "a condition on inputs": in_text(guard),
    "a condition on inputs, in a key": in_text(guard_with_a_quote),
    "a size": in_text(size),
    "a size, in a string": in_text(size_in_a_string),
    "the name of an argument": in_text(argument_name),
    "a container that imports its default": in_text(container("collections.defaultdict", DEFAULT)),
    "a container whose key imports an enum": in_text(container("builtins.dict", ENUM)),
    "a key of a container": in_text(container("builtins.dict", QUOTED)),
    "any function of torch": replaced("torch.ops.aten.conv2d.default", "torch.hub.load"),
    "a loader of libraries": replaced("torch.ops.aten.conv2d.default", "torch.ops.load_library.default"),
    "an attribute of the operators": replaced("torch.ops.aten.conv2d.default", "torch.ops.__class__.load_library"),
    "an operator that reads files": replaced("torch.ops.aten.conv2d.default", "torch.ops.aten.from_file.default"),
}


def rebuilt(change: Change) -> None:
    """Write evil.pt2, a good file with a change."""
    with zipfile.ZipFile(io.BytesIO(good())) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile("evil.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(f"evil/{name}", data)


def test_a_file_that_is_rebuilt_without_a_change_is_read() -> None:
    rebuilt(lambda members: None)
    assert [layer.name for layer in torch_program.find(torch_program.load("evil.pt2"))] == ["bn", "last"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_run_code_is_refused_before_it_does(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("evil_module.py").write_text("import os\nos.mkdir('ran')\n")
    monkeypatch.syspath_prepend(".")
    rebuilt(ATTACKS[attack])
    said = refusal()
    assert said.endswith("load it with torch.export.load, if you trust where it is from, and give the ExportedProgram")
    assert not Path("ran").exists()


def test_the_danger_is_real() -> None:
    """What is refused above does run where it is not: an object that is unpickled."""
    rebuilt(pickled_weight)
    with pytest.raises(Exception, match="not an instance of"):
        quietly(lambda: torch.export.load("evil.pt2"))
    assert Path("ran").is_dir()


def test_a_file_of_several_programs_is_refused() -> None:
    rebuilt(two_programs)
    assert "expected one program called model, found models/" in refusal()


def test_an_archive_of_two_formats_is_refused() -> None:
    Path("evil.pt2").write_bytes(good())
    with zipfile.ZipFile("evil.pt2", "a") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_state_dict.pt", saved({"w": Evil()}))
    refusal()
    assert not Path("ran").exists()


def test_an_operator_that_is_not_registered_here_is_named() -> None:
    rebuilt(replaced("torch.ops.aten.conv2d.default", "torch.ops.somebody.conv.default"))
    assert "somebody" in refusal()


def old_archive(change: Change = lambda members: None) -> None:
    """Write evil.pt2 as torch 2.7 and older did."""
    artifact = quietly(lambda: serialize(model().program))
    members = {
        "version": b"8.8",
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
    }
    change(members)
    with zipfile.ZipFile("evil.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_archives_of_older_versions_are_read_as_carefully(capfd: pytest.CaptureFixture[str]) -> None:
    old_archive()
    assert [layer.role for layer in torch_program.find(torch_program.load("evil.pt2"))] == ["train", "train"]
    for member in ("serialized_state_dict.pt", "serialized_constants.pt", "serialized_example_inputs.pt"):
        evil = {member: saved({"w": Evil()})}
        old_archive(lambda members, evil=evil: members.update(evil))  # type: ignore[misc]  # bound at once
        assert f"{member} holds pickled objects" in refusal()
    text = "serialized_exported_program.json"
    old_archive(lambda members: members.update({text: members[text].replace(b"aten.conv2d", b"_dir.clear")}))
    assert "could become code" in refusal()
    assert not Path("ran").exists()
    assert capfd.readouterr() == ("", "")
