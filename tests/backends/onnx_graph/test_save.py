"""Reading and writing models: what is lifted comes back, and external data keep their bytes and alignment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.models.small_models import LOWLIGHT, ONE_LAYER, built, tree

from normswap.backends import onnx_graph, save
from normswap.backends.onnx_graph import OnnxModel, load
from normswap.backends.onnx_graph.graph.model import external_place, read_tensor, tensors_of
from normswap.backends.onnx_graph.graph.wire import INLINE, FileRange, expand, lift
from normswap.errors import ModelReadError, ModelWriteError

LARGE = 64 * 1024  # bytes from which on a tensor stays on disk
PAGE = 64 * 1024  # the alignment that external data keep


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(name: str, size: int, seed: int = 0) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(seed).integers(0, 256, size, np.uint8), name)


def constant(output: str, size: int, seed: int = 0) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], value=values("", size, seed))


def branch(name: str, size: int) -> onnx.GraphProto:
    """A subgraph whose output is a large constant, with a large initializer beside."""
    output = helper.make_tensor_value_info(f"{name}/y", onnx.TensorProto.UINT8, [size])
    nodes = [constant(f"{name}/c", size, 1), helper.make_node("Max", [f"{name}/c", f"{name}/w"], [f"{name}/y"])]
    return helper.make_graph(nodes, name, [], [output], [values(f"{name}/w", size, 2)])


def model_of(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], functions: list[onnx.FunctionProto] | None = None
) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)
    graph = helper.make_graph([*nodes, helper.make_node("Identity", ["x"], ["y"])], "g", [], [output], tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions or [], ir_version=9)


def in_a_subgraph() -> onnx.ModelProto:
    condition = numpy_helper.from_array(np.array(True), "condition")
    branches = {"then_branch": branch("then", LARGE), "else_branch": branch("else", 2 * LARGE)}
    return model_of([helper.make_node("If", ["condition"], ["x"], **branches)], [condition])


def in_a_function() -> onnx.ModelProto:
    default = helper.make_attribute("table", values("table", LARGE, 3))
    function = helper.make_function(
        "f", "large", [], ["x"], [constant("x", LARGE)], [helper.make_opsetid("", 17)], [], [default]
    )
    return model_of([helper.make_node("large", [], ["x"], domain="f")], [], [function])


def in_lists() -> onnx.ModelProto:
    """Tensors and graphs in attributes that hold several."""
    node = helper.make_node("several", [], ["x"], domain="f", tensors=[values("a", LARGE), values("b", LARGE, 1)])
    node.attribute.append(helper.make_attribute("graphs", [branch("one", LARGE), branch("two", LARGE)]))
    return model_of([node], [])


def with_location_spelled_out() -> onnx.ModelProto:
    """As onnx.load leaves tensors that it has read from a data file."""
    tensor = values("x", LARGE)
    tensor.data_location = onnx.TensorProto.DEFAULT
    return model_of([], [tensor])


def with_typed_data() -> onnx.ModelProto:
    tensor = helper.make_tensor("floats", onnx.TensorProto.FLOAT, [LARGE], np.arange(LARGE, dtype=np.float32))
    return model_of([], [values("x", LARGE), tensor])


def with_our_mark_in_words() -> onnx.ModelProto:
    model = model_of([constant("c", LARGE)], [values(INLINE, 8), values("x", LARGE)])
    model.graph.doc_string = model.graph.node[0].doc_string = model.graph.initializer[0].doc_string = INLINE
    return model


def with_data_twice() -> onnx.ModelProto:
    """Inside and outside at once, which the format forbids."""
    tensor = values("x", LARGE)
    onnx.external_data_helper.set_external_data(tensor, "somewhere", 0, LARGE)
    return model_of([], [tensor])


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "small": lambda: built(ONE_LAYER),
    "lowlight": lambda: onnx.load(LOWLIGHT),
    "lowlight, train mode": lambda: onnx.load(LOWLIGHT.with_name("lowlight_train.onnx")),
    "about the threshold": lambda: model_of([], [values("x", LARGE - 1), values("b", LARGE), values("c", LARGE + 1)]),
    "in a Constant": lambda: model_of([constant("x", LARGE)], []),
    "in a subgraph": in_a_subgraph,
    "in a function": in_a_function,
    "in lists": in_lists,
    "location spelled out": with_location_spelled_out,
    "typed data": with_typed_data,
    "our mark in words": with_our_mark_in_words,
    "data twice": with_data_twice,
}
IN_FILE = {name: make for name, make in MODELS.items() if name != "data twice"}


def expanded(lifted: bytes, data: bytes) -> bytes:
    chunks = (
        data[chunk.offset : chunk.offset + chunk.length] if isinstance(chunk, FileRange) else chunk
        for chunk in expand(lifted)
    )
    return b"".join(chunks)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_lift_and_expand_are_inverse(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    data = model.SerializeToString()
    assert onnx.ModelProto.FromString(expanded(lift(data), data)) == model


@pytest.mark.parametrize("make", IN_FILE.values(), ids=IN_FILE)
def test_large_tensors_stay_on_disk_and_are_read_from_there(make: Callable[[], onnx.ModelProto]) -> None:
    onnx.save(make(), "model.onnx")
    model = load("model.onnx")
    for tensor, original in zip(tensors_of(model.proto), tensors_of(onnx.load("model.onnx")), strict=True):
        assert len(tensor.raw_data) < LARGE
        assert (tensor.data_location == onnx.TensorProto.EXTERNAL) == (len(original.raw_data) >= LARGE)
        np.testing.assert_array_equal(read_tensor(model, tensor), numpy_helper.to_array(original))
    lifted = lift(Path("model.onnx").read_bytes()).count(b"location\x12\x0f" + INLINE.encode())
    known = sum(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors_of(model.proto))
    assert lifted == known, "a lifted tensor that tensors_of does not know"


@pytest.mark.parametrize("make", IN_FILE.values(), ids=IN_FILE)
def test_a_saved_model_is_the_model_that_was_read(make: Callable[[], onnx.ModelProto], folder: Path) -> None:
    onnx.save(make(), "model.onnx")
    save(onnx_graph, load("model.onnx"), "out.onnx")
    assert onnx.load("out.onnx") == onnx.load("model.onnx")
    assert set(tree(folder)) == {"model.onnx", "out.onnx"}


def test_a_model_made_in_memory_is_saved(folder: Path) -> None:
    save(onnx_graph, OnnxModel(built(ONE_LAYER)), "out.onnx")
    assert onnx.load("out.onnx") == built(ONE_LAYER)
    assert set(tree(folder)) == {"out.onnx"}


def with_external(*places: tuple[str, int, int]) -> Path:
    """Write a model of one tensor for each (file, offset, length); files of random bytes must be there."""
    tensors = [onnx.TensorProto(name=f"t{i}", data_type=2, dims=[place[2]]) for i, place in enumerate(places)]
    for tensor, (name, offset, length) in zip(tensors, places, strict=True):
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    Path("model.onnx").write_bytes(model_of([], [*tensors, values("x", 1)]).SerializeToString())
    return Path("model.onnx")


def write_data(name: str, size: int, seed: int = 0) -> None:
    Path(name).write_bytes(np.random.default_rng(seed).bytes(size))


def offsets(path: str) -> list[int]:
    """Where the external tensors of a model lie, in its order."""
    model = load(path)
    return [external_place(model, t).offset for t in tensors_of(model.proto) if t.external_data]


MEGABYTE = 1 << 20
LAYOUTS: dict[str, tuple[list[tuple[str, int, int]], int]] = {  # places, and the most bytes that the copy may take
    "one": ([("a", 0, 100)], 100),
    "neighbours": ([("a", 0, 100), ("a", 100, 50), ("a", 4096, 10)], 4106),
    "out of order": ([("a", 4096, 10), ("a", 100, 50), ("a", 0, 100)], 4106),
    "the same place twice": ([("a", 64, 100), ("a", 64, 100)], 164),
    "overlapping": ([("a", 0, 100), ("a", 50, 100)], 150),
    "one in another": ([("a", 0, 100), ("a", 20, 10)], 100),
    "aligned to a page": ([("a", PAGE, 100), ("a", 3 * PAGE, 100)], 2 * PAGE + 200),
    "at an odd place": ([("a", 12345, 100)], 12445),
    "far apart in a large file": ([("a", 10, 100), ("a", MEGABYTE - 10, 10)], 2 * PAGE + 110),
    "the end of a large file": ([("a", MEGABYTE - 100, 100)], PAGE),
    "a file each": ([("a", 0, 100), ("b", 0, 100), ("c", 0, 100)], 2 * PAGE + 100),
    "files in turn": ([("a", 0, 10), ("b", 5, 10), ("a", 10, 10), ("b", 15, 10)], PAGE + 25),
    "nothing": ([("a", 0, 0)], 0),
}


@pytest.mark.parametrize(("places", "most"), LAYOUTS.values(), ids=LAYOUTS)
def test_external_data_move_to_one_file_with_only_what_is_needed(
    places: list[tuple[str, int, int]], most: int, folder: Path
) -> None:
    for seed, name in enumerate("abc"):
        write_data(name, MEGABYTE, seed)
    source = load(with_external(*places))
    Path("out").mkdir()
    save(onnx_graph, source, "out/out.onnx")
    moved = offsets("out/out.onnx")
    data = Path("out/out.onnx.data").read_bytes()
    for (name, offset, length), at in zip(places, moved, strict=True):
        assert data[at : at + length] == Path(name).read_bytes()[offset : offset + length]
        assert (at - offset) % PAGE == 0, "another alignment"
    assert len(data) <= most
    assert set(tree(folder / "out")) == {"out.onnx", "out.onnx.data"}


def test_neighbours_keep_their_distance() -> None:
    write_data("a", MEGABYTE)
    save(onnx_graph, load(with_external(("a", 640, 64), ("a", 704, 32), ("a", 1000, 8))), "out.onnx")
    first, second, third = offsets("out.onnx")
    assert (second - first, third - first) == (64, 360)


def test_tensors_inside_and_beside_are_saved_together() -> None:
    write_data("a", 2 * LARGE)
    model = onnx.load(with_external(("a", LARGE, LARGE)), load_external_data=False)
    model.graph.initializer.append(values("inside", LARGE, 5))
    model.graph.node.insert(0, constant("c", LARGE, 6))
    Path("model.onnx").write_bytes(model.SerializeToString())
    save(onnx_graph, load("model.onnx"), "out.onnx")
    read, written = load("model.onnx"), load("out.onnx")
    for one, other in zip(tensors_of(read.proto), tensors_of(written.proto), strict=True):
        np.testing.assert_array_equal(read_tensor(read, one), read_tensor(written, other))


def test_a_data_file_that_is_there_is_left_alone() -> None:
    write_data("a", 1000)
    source = load(with_external(("a", 0, 1000)))
    Path("out.onnx.data").write_text("of another model")
    save(onnx_graph, source, "out.onnx")
    save(onnx_graph, source, "out.onnx", force=True)
    assert Path("out.onnx.data").read_text() == "of another model"
    written = load("out.onnx")
    np.testing.assert_array_equal(
        read_tensor(written, written.proto.graph.initializer[0]), np.frombuffer(Path("a").read_bytes(), np.uint8)
    )


def test_a_model_is_never_written_over_its_own_files(folder: Path) -> None:
    write_data("a", 1000)
    source = load(with_external(("a", 0, 1000)))
    before = tree(folder)
    for name in ("model.onnx", "a"):
        with pytest.raises(ModelWriteError, match="never overwritten"):
            save(onnx_graph, source, name, force=True)
    assert tree(folder) == before


def test_a_source_that_shrank_is_an_error_and_nothing_is_written(folder: Path) -> None:
    write_data("a", 1000)
    source = load(with_external(("a", 0, 1000)))
    write_data("a", 900)
    before = tree(folder)
    with pytest.raises((ModelReadError, ModelWriteError), match=r"short"):
        save(onnx_graph, source, "out.onnx")
    assert tree(folder) == before


@pytest.mark.parametrize("moment", [1, 2])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_a_stop_between_the_two_renames_leaves_neither(
    moment: int, stop: type[BaseException], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data("a", 1000)
    source = load(with_external(("a", 0, 1000)))
    Path("out.onnx").write_text("old")
    before = tree(folder)
    rename, done = os.replace, []

    def stopping(source: str, target: str) -> None:
        done.append(target)
        if len(done) == moment:
            raise stop
        rename(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises((stop, ModelWriteError)):
        save(onnx_graph, source, "out.onnx", force=True)
    assert tree(folder) == before
