"""RUNTIMES: where else than in ONNX Runtime a converted file can be run, each run in a process of its own.

A runtime that crashes takes that process with it and no more, and what it prints or loads stays there. A new runtime is
one file here, with ``infer`` and ``described``, one entry below, and its column of table.py: the forms that it computes
correctly.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from normswap.errors import CannotRunError, SelectionError
from normswap.layer import Array
from normswap.words import nearest

__all__ = ["OWN", "RUNTIMES", "check_runtimes", "infer"]

_SECONDS = 600  # after which a run counts as hung
OWN = ("onnxruntime",)  # runs every .onnx file anyway, in the ways of its backend


RUNTIMES: dict[str, str] = {  # name, which is also that of the module and of the extra -> what it is imported as
    "openvino": "openvino",
    "opencv": "cv2",
    "mnn": "MNN",
}


def check_runtimes(names: Sequence[str], has_file: bool = True) -> None:
    """Raise if a runtime is unknown, not installed, or has nothing to run, before any work.

    Args:
        names: Of the runtimes.
        has_file: Whether there will be an .onnx file to run.

    Raises:
        SelectionError: If a name is unknown, or there will be no .onnx file.
        CannotRunError: If it is not installed.
    """
    known = (*OWN, *RUNTIMES)
    for name in names:
        if name not in known:
            raise SelectionError(f"unknown runtime {name!r}{nearest(name, known)}; known are {', '.join(known)}")
        if name in RUNTIMES and importlib.util.find_spec(RUNTIMES[name]) is None:
            raise CannotRunError(
                f"{name} is not installed, so that nothing can be run there; pip install 'normswap[{name}]'"
            )
    if names and not has_file:
        raise SelectionError(f"{names[0]} runs .onnx files, and none results from this; leave the runtime out")


def infer(name: str, model: Path, feed: Mapping[str, Array], outputs: Sequence[str]) -> tuple[dict[str, Array], str]:
    """Run an .onnx file once in a runtime.

    Args:
        name: A key of RUNTIMES.
        model: The file, its external data in the same folder.
        feed: Inputs by name.
        outputs: Names of the outputs wanted.

    Returns:
        Outputs by name, and how they were computed: the runtime's version and settings, for the report.

    Raises:
        CannotRunError: If the runtime cannot load or run the model, crashes, or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="normswap-") as name_of_folder:
        folder = Path(name_of_folder)
        for index, array in enumerate(feed.values()):
            np.save(folder / f"in{index}.npy", array, allow_pickle=False)
        asked = {"runtime": name, "model": str(model.absolute()), "inputs": list(feed), "outputs": list(outputs)}
        (folder / "asked.json").write_text(json.dumps(asked))
        # This package, wherever it was imported from; and no site of the current folder's.
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        with (folder / "log").open("wb") as log:
            try:
                ended = subprocess.run(
                    [sys.executable, "-m", "normswap.runtimes.child", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=_SECONDS,
                    env=os.environ | {"PYTHONPATH": path},
                )
            except subprocess.TimeoutExpired as error:
                raise CannotRunError(f"{name} did not finish within {_SECONDS} s") from error
        answer = folder / "answer.json"
        if not answer.exists():
            line = _last_line((folder / "log").read_text(errors="replace"))
            raise CannotRunError(f"{name} crashed (exit code {ended.returncode}){line and f': {line}'}")
        answered = json.loads(answer.read_text())
        if answered["trouble"]:
            raise CannotRunError(f"{name} {answered['trouble']}")
        found = {output: np.load(folder / f"out{i}.npy", allow_pickle=False) for i, output in enumerate(outputs)}
        return found, answered["described"]


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
