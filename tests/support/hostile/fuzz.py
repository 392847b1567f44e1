"""Run normswap on damaged files and hold it to what it promises whatever it is given.

PYTHONPATH=tests python -m support.hostile.fuzz --minutes 30  as many cases as fit
PYTHONPATH=tests python -m support.hostile.fuzz --cases 200 --seed 3  the same 200 cases each time
PYTHONPATH=tests python -m support.hostile.fuzz --minutes 30 --keep FOLDER  leaves a folder for each case that failed
PYTHONPATH=tests python -m support.hostile.fuzz --replay FOLDER/000012-0        one of them again
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from support.hostile.damage import damaged_bytes, damaged_model
from support.hostile.promises import CRASHED, Case, Ended, perform, trouble_with
from support.models.cases import CASES, build
from support.models.small_models import LOWLIGHT, ONE_LAYER, RANK_TWO, built

__all__ = ["cases", "fuzz", "make_seeds", "read_seeds"]

_SMALL = 200_000  # bytes of a file that cases are made from
_TARGETS = ("instance", "batch-stat", "population")
_BATCH = 100  # cases drawn from one seed
_SHOWN, _KEPT = 3, 20  # failures of one kind
Files: TypeAlias = Mapping[str, bytes]


# What cases are made of.


@dataclass(frozen=True)
class Seed:
    """A model of ONNX and its conversion; both are the same where it has none."""

    original: onnx.ModelProto
    converted: onnx.ModelProto
    target: str


NET = b"""
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
"""


def models() -> dict[str, onnx.ModelProto]:
    """Return the shipped model and the small ones, those of the corpus too where there is one."""
    found = {"one layer": built(ONE_LAYER), "rank 2": built(RANK_TWO), "lowlight": onnx.load(LOWLIGHT)}
    found |= {name: build(case.text) for name, case in CASES.items()}
    if corpus := os.environ.get("NORMSWAP_CORPUS"):
        for path in sorted(Path(corpus).rglob("*.onnx")):
            if path.stat().st_size < _SMALL and b"location" not in path.read_bytes():
                found[path.name] = onnx.load(path, load_external_data=False)
    return found


def make_seeds(folder: Path) -> None:
    """Write the models that cases are made from, and what normswap makes of them."""
    import torch

    import normswap

    for index, model in enumerate(models().values()):
        onnx.save(model, folder / f"{index}.onnx")
        for target in _TARGETS:
            with contextlib.suppress(normswap.NormswapError):
                path = folder / f"{index}.{target}.onnx"
                normswap.convert(model, target, output=path, end_to_end=False, allow_refusals=True)
    space: dict[str, Any] = {}
    exec(NET, space)
    network = space["net"]()
    torch.save(network.state_dict(), folder / "net.pth")
    from safetensors.torch import save_file

    save_file(network.state_dict(), folder / "net.safetensors")
    program = torch.export.export(network.eval(), (torch.ones(2, 3, 4, 4),))
    torch.export.save(program, folder / "net.pt2")
    np.savez(folder / "net.npz", x=np.ones((2, 3, 8, 8), np.float32))
    np.savez_compressed(folder / "small.npz", x=np.ones((2, 3, 8, 8), np.float32))


def read_seeds(folder: Path) -> tuple[list[Seed], Files]:
    """Read what ``make_seeds`` wrote: models and their conversions, and other files."""
    seeds = []
    for path in sorted(folder.glob("*.onnx")):
        index, _, target = path.stem.partition(".")
        if target:
            seeds.append(Seed(onnx.load(folder / f"{index}.onnx"), onnx.load(path), target))
        elif not list(folder.glob(f"{index}.*.onnx")):
            seeds.append(Seed(onnx.load(path), onnx.load(path), "instance"))
    return seeds, {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".onnx"}


def cases(seeds: Sequence[Seed], files: Files) -> st.SearchStrategy[Case]:
    """Draw cases: of ONNX most, since it is the least checked before it comes here."""
    kinds = [_torch_cases(files), _input_cases(seeds, files), *[_onnx_cases(seeds)] * 8]
    return st.integers(0, len(kinds) - 1).flatmap(lambda kind: kinds[kind])


@st.composite
def _onnx_cases(draw: st.DrawFn, seeds: Sequence[Seed]) -> Case:
    chosen = draw(st.sampled_from(seeds))
    command = draw(st.sampled_from(_ONNX))
    whole, part = chosen.original, chosen.converted
    if "good.onnx bad.onnx" in command:
        whole, part = part, whole
    donors = [whole, draw(st.sampled_from(seeds)).original]
    if draw(st.integers(0, 3)):
        bad = draw(damaged_model(whole, donors))
    else:
        bad = draw(damaged_bytes([bytes(model.SerializeToString()) for model in donors]))
    options = "" if "inspect" in command else draw(st.sampled_from(_OPTIONS))
    argv = f"{command} {options}".format(target=chosen.target).split()
    return Case(tuple(argv), {"bad.onnx": bad, "good.onnx": bytes(part.SerializeToString()), "data.bin": bytes(4096)})


_OPTIONS = ("", "", "--no-end-to-end", "--allow-refusals", "--allow-refusals --drop-statistics")
_ONNX = (
    "inspect bad.onnx",
    "inspect bad.onnx --to {target} --json",
    "convert bad.onnx --to {target} -o out.onnx",
    "convert bad.onnx --to {target} -o out.onnx",
    "verify bad.onnx good.onnx --to {target}",
    "verify good.onnx bad.onnx --to {target}",
    "verify good.onnx bad.onnx --to {target} --format junit",
    "verify bad.onnx bad.onnx --to {target}",
)


@st.composite
def _input_cases(draw: st.DrawFn, seeds: Sequence[Seed], files: Files) -> Case:
    bad = draw(damaged_bytes([files["net.npz"], files["small.npz"]]))
    argv = "convert good.onnx --to instance -o out.onnx --inputs bad.npz"
    return Case(tuple(argv.split()), {"good.onnx": bytes(seeds[0].original.SerializeToString()), "bad.npz": bad})


@st.composite
def _torch_cases(draw: st.DrawFn, files: Files) -> Case:
    suffix = draw(st.sampled_from((".pth", ".safetensors", ".pt2")))
    bad = draw(damaged_bytes([files[f"net{suffix}"]]))
    commands = [f"inspect bad{suffix}", f"convert bad{suffix} --to instance -o out{suffix}"]
    commands += [f"verify bad{suffix} good{suffix} --to population", f"verify good{suffix} bad{suffix} --to population"]
    if suffix != ".pt2":
        commands += [f"convert net:net --weights bad{suffix} --to instance -o out{suffix} --shape 0=2x3x4x4"]
        commands += [f"verify net:net bad{suffix} --weights good{suffix} --to instance --no-end-to-end"]
    return Case(
        tuple(draw(st.sampled_from(commands)).split()),
        {f"bad{suffix}": bad, f"good{suffix}": files[f"net{suffix}"], "net.py": NET},
    )


# Many of them.


def fuzz(
    folder: Path,
    *,
    first: int = 0,
    count: int | None = None,
    until: float | None = None,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run cases and return figures and the failures.

    Args:
        folder: To work in.
        first: Of the seeds; every hundred cases have one.
        count: How many cases; as many as fit if None.
        until: When to stop, by time.monotonic.
        keep: Where to leave the files of cases that failed.
        say: Told of each failure.
    """
    made = folder / "seeds"
    made.mkdir(parents=True)
    # Elsewhere, since a process that has run models is not to be forked.
    subprocess.run([sys.executable, "-m", "support.hostile.fuzz", "--make-seeds", str(made)], check=True)
    seeds, files = read_seeds(made)
    _load_frameworks()
    figures: dict[str, Any] = {"cases": 0, "codes": Counter(), "crashes": 0, "slowest": 0.0, "megabytes": 0.0}
    failures: dict[str, list[str]] = {}

    def one(case: Case) -> None:
        if until is not None and time.monotonic() > until:
            return
        ended = perform(case, folder / "case")
        trouble = trouble_with(case, ended)
        figures["cases"] += 1
        figures["codes"][f"{case.argv[0]} {ended.code}"] += 1
        figures["crashes"] += CRASHED in ended.err
        figures["slowest"] = max(figures["slowest"], ended.seconds)
        figures["megabytes"] = max(figures["megabytes"], ended.megabytes)
        if trouble:
            known = failures.setdefault(re.sub(r"\d+|'[^']*'", "#", trouble)[:160], [])
            known.append(f"{trouble}: {' '.join(case.argv)}")
            if len(known) <= _SHOWN:
                say(known[-1])
            if keep is not None and len(known) <= _KEPT:
                _kept(case, ended, keep / f"{figures['cases']:06}-{first}")

    batch = first
    while (count is None or figures["cases"] < count) and (until is None or time.monotonic() < until):
        size = _BATCH if count is None else min(_BATCH, count - figures["cases"])
        _drawing(cases(seeds, files), one, batch, size)()
        batch += 1
    return {**figures, "codes": dict(sorted(figures["codes"].items())), "failures": failures}


def _drawing(
    strategy: st.SearchStrategy[Case], one: Callable[[Case], None], number: int, size: int
) -> Callable[[], None]:
    @seed(number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=strategy)
    def test(case: Case) -> None:
        one(case)

    return test


def _kept(case: Case, ended: Ended, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    (folder / "case.json").write_text(json.dumps({"argv": case.argv, "code": ended.code, "err": ended.err}))


def _load_frameworks() -> None:
    """Load what cases would load, once for all of them."""
    for name in (
        "onnx.reference",
        "onnxruntime",
        "rich.console",
        "torch._inductor.compiler_bisector",  # makes itself a folder for temporary files, which is none of ours
        "normswap.backends.onnx_graph",
        "normswap.backends.torch.module",
        "normswap.backends.torch.program",
        "normswap.backends.torch.checkpoint",
        "normswap.cli",
        "normswap.backends.torch.factory",
        "normswap.reports.inspection",
        "normswap.reports.verification",
    ):
        importlib.import_module(name)


def _replay(folder: Path, kept: Path) -> int:
    """Run a case that was kept, and show how it ended."""
    given = json.loads((kept / "case.json").read_text())
    files = {path.name: path.read_bytes() for path in kept.iterdir() if path.name != "case.json"}
    case = Case(tuple(given["argv"]), files)
    _load_frameworks()
    ended = perform(case, folder / "case")
    trouble = trouble_with(case, ended)
    sys.stdout.write(
        f"{ended.out}{ended.err}exit code {ended.code}, {ended.seconds:.1f} s, {ended.megabytes:.0f} MB: "
        f"{trouble or 'as promised'}\n"
    )
    return int(bool(trouble))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--replay", type=Path, metavar="FOLDER")
    parser.add_argument("--make-seeds", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ.update(OMP_NUM_THREADS="1", ORT_DISABLE_TELEMETRY="1", PYTHONDONTWRITEBYTECODE="1")
    if options.make_seeds:
        make_seeds(options.make_seeds)
        return 0
    with tempfile.TemporaryDirectory(prefix="normswap-fuzz-") as name:
        if options.replay:
            return _replay(Path(name), options.replay)
        until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
        figures = fuzz(
            Path(name),
            first=options.seed,
            count=options.cases if options.cases or until else _BATCH,
            until=until,
            keep=options.keep,
            say=lambda line: print(line, file=sys.stderr),
        )
    print(json.dumps(figures, indent=2))
    return int(bool(figures["failures"]))


if __name__ == "__main__":
    sys.exit(main())
