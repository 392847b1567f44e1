"""The layout: imports form no circle of files or of folders, the top is small, and no file is long."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from support import ROOT

PACKAGE = ROOT / "normswap"
NOT_COUNTED = {"__init__.py", "__main__.py", "py.typed"}
FILES = ("api", "errors", "files", "layer", "nn", "plan", "report", "testing", "version", "words")
ROOMS = (
    *("algebra", "backends", "cli", "data", "diagnosis", "norms", "options", "recalibration", "reports", "runtimes"),
    *("statistics", "verify"),
)
# A result is data and stands below reports; its to_text and to_dict ask reports for the words when they are called.
ON_DEMAND = [
    ("diagnosis.findings", "reports.diagnosis"),
    ("recalibration.report", "reports.recalibration"),
    ("report", "reports.checks"),
]
LONG: dict[str, str] = {}  # a file of more than 300 lines -> why it holds one idea all the same

Graph = Mapping[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Every file of a package by its path from there, as a name: ``norms.blend``; a folder has ``norms.__init__``."""
    found = sorted(package.rglob("*.py"))
    return {".".join(path.relative_to(package).with_suffix("").parts): path for path in found}


def imports(source: str, root: str, known: Iterable[str]) -> set[str]:
    """The modules of ``root`` that a file imports, wherever in it: inside functions and for type checkers as well."""
    names = set(known)

    def module(name: str) -> Iterator[str]:
        inner = name.removeprefix(root).removeprefix(".")
        for candidate in (inner, f"{inner}.__init__".lstrip(".")):
            if candidate in names:
                yield candidate

    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == root:
                    found |= {*module(alias.name)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == root:
            assert node.level == 0
            for alias in node.names:
                # What is imported from a folder is a file of it, or a name in its __init__.
                found |= {*module(f"{node.module}.{alias.name}")} or {*module(str(node.module))}
    return found


def files(package: Path) -> dict[str, set[str]]:
    known = modules(package)
    return {
        name: imports(path.read_text(encoding="utf-8"), package.name, known) - {name} for name, path in known.items()
    }


def siblings(graph: Graph, folder: str) -> dict[str, set[str]]:
    """The graph of the files and folders that lie in a folder; "" is the package."""
    inside = f"{folder}." if folder else ""

    def child(name: str) -> str | None:
        return name[len(inside) :].partition(".")[0] if name.startswith(inside) else None

    found: dict[str, set[str]] = {}
    for name, targets in graph.items():
        if (own := child(name)) is not None:
            others = {other for target in targets if (other := child(target)) is not None}
            found.setdefault(own, set()).update(others - {own})
    return found


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one node, by Kosaraju's algorithm."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(node: str) -> None:
        seen.add(node)
        for target in graph.get(node, ()):
            if target not in seen:
                visit(target)
        order.append(node)

    for node in graph:
        if node not in seen:
            visit(node)
    back: dict[str, set[str]] = {}
    for node, targets in graph.items():
        for target in targets:
            back.setdefault(target, set()).add(node)
    components: list[list[str]] = []
    taken: set[str] = set()
    for node in reversed(order):
        component, waiting = [], [node]
        while waiting:
            one = waiting.pop()
            if one not in taken:
                taken.add(one)
                component.append(one)
                waiting += back.get(one, ())
        if len(component) > 1:
            components.append(sorted(component))
    return components


def without(graph: Graph, edges: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    left = {name: {*targets} for name, targets in graph.items()}
    for name, target in edges:
        left[name].remove(target)
    return left


GRAPH = without(files(PACKAGE), ON_DEMAND)
FOLDERS = sorted({".".join(name.split(".")[:depth]) for name in GRAPH for depth in range(name.count(".") + 1)})


def edges_in(circle: list[str], graph: Graph, folder: str) -> list[str]:
    """The imports that make a circle, to be shown."""
    pairs = [(name, target) for name, targets in graph.items() for target in targets]
    return [
        f"{name} -> {target}"
        for name, target in sorted(pairs)
        for own, others in siblings({name: {target}}, folder).items()
        if own in circle and others & {*circle}
    ]


@pytest.mark.parametrize(("name", "target"), ON_DEMAND, ids="-".join)
def test_what_is_imported_on_demand_is_imported_inside_a_function(name: str, target: str) -> None:
    tree = ast.parse(modules(PACKAGE)[name].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        function.body = [ast.Pass()]
    assert target not in imports(ast.unparse(tree), PACKAGE.name, modules(PACKAGE))


def test_no_circle_of_files() -> None:
    assert circles(GRAPH) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder or "normswap" for folder in FOLDERS])
def test_no_circle_of_what_lies_in_a_folder(folder: str) -> None:
    assert [edges_in(circle, GRAPH, folder) for circle in circles(siblings(GRAPH, folder))] == []


def test_the_top_reads_like_the_design() -> None:
    top = {path.name for path in PACKAGE.iterdir() if path.is_file()} - NOT_COUNTED
    assert top == {f"{name}.py" for name in FILES}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {*ROOMS}


def test_no_file_is_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(PACKAGE).items()}
    assert {name for name, length in lengths.items() if length > 300} == LONG.keys()
    assert lengths["api"] <= 200, "the pipeline fits on one screen"


def test_circles_are_found(tmp_path: Path) -> None:
    """The mutant of the tests above: a package with every kind of import and circle."""
    sources = {
        "__init__.py": "from toy.a import x",
        "a.py": "from toy.one import b",
        "one/__init__.py": "",
        "one/b.py": "def f():\n    from toy.two.c import y",
        "two/__init__.py": "",
        "two/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.one.d",
        "one/d.py": "import toy",
        "e.py": "from toy.f import x",
        "f.py": "import os, json",
    }
    for name, source in sources.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    graph = files(tmp_path / "toy")
    assert graph["a"] == {"one.b"} and graph["one.b"] == {"two.c"} and graph["two.c"] == {"one.d"}
    assert graph["one.d"] == {"__init__"} and graph["e"] == {"f"} and graph["f"] == set()
    assert circles(graph) == [["__init__", "a", "one.b", "one.d", "two.c"]]
    graph["one.d"].clear()
    assert circles(graph) == [], "no file needs itself any more"
    assert circles(siblings(graph, "")) == [["one", "two"]], "but the folders still do"
    assert edges_in(["one", "two"], graph, "") == ["one.b -> two.c", "two.c -> one.d"]
    assert circles(siblings(graph, "one")) == []
