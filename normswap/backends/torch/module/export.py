"""EXPORTS: how a converted module becomes a file that other runtimes take, and which backend reads it back."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from normswap.backends.protocols import Backend, Exported
from normswap.backends.torch.module.inputs import Arguments, called
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.backends.torch.running import run_quietly, undisturbed
from normswap.backends.torch.tensors import tensors_in
from normswap.backends.values import Feed
from normswap.errors import CannotRunError, ModelWriteError, first_line
from normswap.nn import SwappedNorm

__all__ = ["EXPORTS", "export"]


def export(model: ModuleModel, feeds: Sequence[Feed], aside: Path) -> Exported:
    """Export a module to a file whose suffix is in EXPORTS, and read it back.

    The batch size is left open where possible.

    Args:
        model: The converted module.
        feeds: Inputs to trace with; the first that the module takes is used.
        aside: The file to write.

    Raises:
        ModelWriteError: If the exporter fails.
        CannotRunError: If the module runs on none of ``feeds``.
    """
    program = _traced(model, feeds, aside)
    write, backend = EXPORTS[aside.suffix]
    write(program, model.module, aside)
    return Exported(backend().load(aside), backend())


def _to_onnx(program: torch.export.ExportedProgram, module: nn.Module, aside: Path) -> None:
    """Write an .onnx file by torch's exporter."""
    _raise_for_randomness(program, module, aside)
    with _silent(), _as_write_error(aside, "torch.onnx.export"):
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
        assert exported is not None, "with dynamo=True it returns the program"
        _record(exported.model, module)
        exported.save(os.fspath(aside))


def _raise_for_randomness(program: torch.export.ExportedProgram, module: nn.Module, aside: Path) -> None:
    """Refuse a module whose outputs are drawn, since another runtime draws others and nothing could be compared."""
    args, kwargs = program.example_inputs

    def drawn(seed: int) -> list[bytes]:
        def call() -> Any:
            torch.manual_seed(seed)
            return copied(module)(*args, **kwargs)

        return [array.tobytes() for array in run_quietly(call).outputs.values()]

    if drawn(1) != drawn(2):
        dropouts = [path for path, m in module.named_modules() if isinstance(m, _DropoutNd) and m.training]
        named = f"; {', '.join(dropouts[:3])}{' and others' * (len(dropouts) > 3)} in train mode" if dropouts else ""
        raise ModelWriteError(
            f"{aside.name}: the model draws random numbers{named}, where another runtime would draw others, so that "
            "the file could not be compared with it; put what draws them into eval mode, or write the weights "
            "(.pth, .safetensors)"
        )


def _record(exported: Any, module: nn.Module) -> None:
    """Note in the file's metadata what was converted, as conversions of ONNX files do."""
    from normswap.version import __version__

    layers: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for path, inner in module.named_modules():
        if isinstance(inner, SwappedNorm):
            target = {"to": inner.norm.name, **inner.norm.parameters}
            layers.setdefault(tuple(target.items()), []).append(path)
    entries = [{"version": __version__, **dict(target), "layers": names} for target, names in layers.items()]
    exported.metadata_props["normswap"] = json.dumps(entries)


def _to_program(program: torch.export.ExportedProgram, module: nn.Module, aside: Path) -> None:
    """Write a .pt2 file, an ExportedProgram."""
    with _silent(), _as_write_error(aside, "torch.export.save"):
        torch.export.save(program, aside)


def _onnx_graph() -> Backend:
    from normswap.backends import onnx_graph

    return onnx_graph


def _program() -> Backend:
    from normswap.backends.torch import program

    return program


_Write: TypeAlias = Callable[[torch.export.ExportedProgram, nn.Module, Path], None]
EXPORTS: dict[str, tuple[_Write, Callable[[], Backend]]] = {  # suffix -> what writes the file, and what reads it
    ".onnx": (_to_onnx, _onnx_graph),
    ".pt2": (_to_program, _program),
}


def _traced(model: ModuleModel, feeds: Sequence[Feed], aside: Path) -> torch.export.ExportedProgram:
    """Trace a copy with the first inputs that it takes; the first axis of every input is the batch, left open."""
    for feed in feeds:
        assert isinstance(feed.arrays, Arguments), "feeds of this backend"
        try:
            run_quietly(called(copied(model.module), feed.arrays))
        except CannotRunError:
            continue
        given = (feed.arrays.args, feed.arrays.kwargs)
        doubled = _with_two_samples(given)
        with _silent(), _as_write_error(aside, "torch.export.export"):
            if doubled is not None:
                with contextlib.suppress(Exception):  # a model that takes no other batch than this
                    return _export(copied(model.module), doubled)
            return _export(copied(model.module), given)
    raise CannotRunError("the converted model runs on none of the inputs, so that it cannot be exported")


def _export(module: nn.Module, given: tuple[Any, Any]) -> torch.export.ExportedProgram:
    args, kwargs = given
    names = inspect.signature(module.forward).bind(*args, **kwargs).arguments

    def left_open(value: Any) -> Any:
        return {0: torch.export.Dim.AUTO} if isinstance(value, torch.Tensor) and value.ndim else None

    shapes = torch.utils._pytree.tree_map(left_open, dict(names))
    with undisturbed():
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)


def _with_two_samples(given: tuple[Any, Any]) -> tuple[Any, Any] | None:
    """Repeat a batch of one, since tracing takes a length of 1 as fixed; None where no batch is of one."""
    tensors = tensors_in(given)
    if not tensors or any(tensor.ndim == 0 or len(tensor) != 1 for tensor in tensors):
        return None
    doubled: tuple[Any, Any] = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: torch.cat([x, x]), given)
    return doubled


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporters' progress and warnings from the caller: what matters comes back as an exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _as_write_error(aside: Path, exporter: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ModelWriteError(f"{aside.name}: {exporter} needs {error.name}; pip install 'normswap[torch]'") from error
    except OSError:  # a full disk says nothing of the model
        raise
    except Exception as error:  # exporters raise anything
        raise ModelWriteError(
            f"{aside.name}: {exporter} cannot export this model: {type(error).__name__}: {first_line(error)}; "
            "write its weights (.pth, .safetensors) instead"
        ) from error
