"""The process that a runtime runs in: reads what is asked, runs it, writes what came out."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from normswap.errors import first_line

__all__ = ["main"]


def main(folder: Path) -> None:
    """Answer ``asked.json`` with ``answer.json`` and an array for each output."""
    asked = json.loads((folder / "asked.json").read_text())
    feed = {name: np.load(folder / f"in{i}.npy", allow_pickle=False) for i, name in enumerate(asked["inputs"])}
    answer = {"trouble": "", "described": ""}
    try:
        runtime = importlib.import_module(f"normswap.runtimes.{asked['runtime']}")
        answer["described"] = runtime.described()
        found = runtime.infer(asked["model"], feed, asked["outputs"], folder)
        for index, array in enumerate(found):
            np.save(folder / f"out{index}.npy", np.asarray(array), allow_pickle=False)
    except Exception as error:  # runtimes raise what they like
        answer["trouble"] = f"cannot run the model: {type(error).__name__}: {first_line(error)}"
    aside = folder / "answer.aside"
    aside.write_text(json.dumps(answer))
    aside.rename(folder / "answer.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
