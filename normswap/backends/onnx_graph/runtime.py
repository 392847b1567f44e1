"""ONNX Runtime: how a model is run, and what it says when it cannot."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from normswap.backends.interrupts import interrupts_held_back
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, location_of, set_nodes, tensors_of
from normswap.backends.onnx_graph.graph.nodes import with_subgraphs
from normswap.backends.onnx_graph.graph.wire import INLINE
from normswap.errors import CannotRunError, TimeLimitError
from normswap.layer import Array

__all__ = ["TIME_LIMIT", "Session"]

TIME_LIMIT = "NORMSWAP_TIME_LIMIT"  # environment variable: seconds for one run of a model with loops


class Session:
    """A model loaded into ONNX Runtime on the CPU.

    Args:
        model: What to run; tensors on disk are read from where they lie.
        optimize: Run with the runtime's default graph optimisations, as deployed, or with none.
        threads: Threads inside an operator; 0 leaves it to the runtime.
        count_calls: Record which nodes run, for ``calls``.

    Raises:
        CannotRunError: If the runtime does not take the model.
    """

    def __init__(self, model: OnnxModel, *, optimize: bool, threads: int = 0, count_calls: bool = False) -> None:
        onnxruntime = _onnxruntime()
        model, self._inputs, self._outputs = _without_bfloat16(model)
        self._limit = _time_limit() if _may_not_end(model.proto) else None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Threads that spin for a while after each run take the processor from other sessions that run in turn with
        # this one, which doubled their time; a session alone does not notice.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        self._counts_calls = count_calls
        if count_calls:
            folder = tempfile.mkdtemp(prefix="normswap-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "calls")
        folder_of_data = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(folder_of_data, str(model.folder.absolute()))
        try:
            self._session = onnxruntime.InferenceSession(
                _with_data_by_path(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions have no common public base
            raise CannotRunError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error
        names = [value.name for value in self._session.get_outputs()]
        self.output_names: list[str] = [self._outputs.get(name, name) for name in names]

    def run(self, feed: Mapping[str, Any]) -> dict[str, Array]:
        """Run the model once and return its outputs by name.

        Raises:
            CannotRunError: If the runtime fails.
            TimeLimitError: If the model has a loop, and is not done in time.
        """
        arrays = {self._inputs.get(name, name): _fed(feed[name]) for name in feed}
        try:
            values = self._session.run(None, arrays) if self._limit is None else self._within(self._limit, arrays)
        except TimeLimitError:
            raise
        except Exception as error:  # the runtime's exceptions have no common public base
            raise CannotRunError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error
        return dict(zip(self.output_names, map(np.asarray, values), strict=True))

    def _within(self, seconds: float, arrays: Mapping[str, Any]) -> Any:
        """Run a model that may never end, and end it."""
        options = _onnxruntime().RunOptions()
        timer = threading.Timer(seconds, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self._session.run(None, arrays, options)
        except Exception as error:  # the runtime's exceptions have no common public base
            if not options.terminate:
                raise
            raise TimeLimitError(
                f"the model was not done after {seconds:g} seconds, and has a Loop that may never be; give smaller "
                f"inputs, set {TIME_LIMIT} to more seconds, or leave such runs out with --no-end-to-end"
            ) from error
        finally:
            timer.cancel()

    def calls(self) -> dict[str, int]:
        """Count, by the name of the node, how often each kernel ran so far; ends the counting."""
        if not self._counts_calls:
            return {}
        self._counts_calls = False
        events = json.loads(Path(self._session.end_profiling()).read_text())
        suffix = "_kernel_time"
        names = [event["name"] for event in events if event.get("cat") == "Node"]
        return Counter(name.removesuffix(suffix) for name in names if name.endswith(suffix))


def _time_limit() -> float:
    """Seconds that a run of a model with loops may take."""
    given = os.environ.get(TIME_LIMIT, "600")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise TimeLimitError(f"{TIME_LIMIT}: expected a number of seconds above 0, found {given!r}")
    return seconds


def _may_not_end(proto: onnx.ModelProto) -> bool:
    """Whether there is a Loop, the one operator that decides as it runs how often to go round."""
    codes = (proto.graph, *proto.functions)
    return any(node.op_type == "Loop" for code in codes for inner in with_subgraphs(code) for node in inner.node)


def _without_bfloat16(model: OnnxModel) -> tuple[OnnxModel, dict[str, str], dict[str, str]]:
    """Let the model take and give float32, which holds every bfloat16: NumPy has no bfloat16 to feed.

    Returns:
        The model, new names of inputs by old, old names of outputs by new.
    """
    bfloat16 = onnx.TensorProto.BFLOAT16
    graph = model.proto.graph
    if all(value.type.tensor_type.elem_type != bfloat16 for value in (*graph.input, *graph.output)):
        return model, {}, {}
    proto = copy_of(model).proto
    inputs, outputs, casts = {}, {}, []
    defaults = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in defaults:
            continue
        if value.type.tensor_type.elem_type == bfloat16:
            inputs[value.name] = f"{value.name}/float32"
            casts.append(onnx.helper.make_node("Cast", [inputs[value.name]], [value.name], to=bfloat16))
            value.name, value.type.tensor_type.elem_type = inputs[value.name], onnx.TensorProto.FLOAT
    nodes = [*casts, *proto.graph.node]
    for value in proto.graph.output:
        if value.type.tensor_type.elem_type == bfloat16:
            outputs[f"{value.name}/float32"] = value.name
            cast = onnx.helper.make_node("Cast", [value.name], [f"{value.name}/float32"], to=onnx.TensorProto.FLOAT)
            nodes.append(cast)
            value.name, value.type.tensor_type.elem_type = f"{value.name}/float32", onnx.TensorProto.FLOAT
    set_nodes(proto.graph.node, nodes)
    return OnnxModel(proto, model.path), inputs, outputs


def _fed(array: Any) -> Any:
    return array.astype(np.float32) if getattr(array, "dtype", None) == "bfloat16" else array


def _onnxruntime() -> Any:
    """Load ONNX Runtime, not before it is needed: large weights are being copied meanwhile."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a converter has nothing to report to anybody
    with interrupts_held_back():
        import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # what matters comes back as an exception
    return onnxruntime


def _with_data_by_path(model: OnnxModel) -> bytes:
    """Encode the model; tensors that lie in its own file are read from there as external data."""
    if all(location_of(tensor) != INLINE for tensor in tensors_of(model.proto)):
        return bytes(model.proto.SerializeToString())
    assert model.path is not None, "only a file has data of its own"
    proto = copy_of(model).proto
    for tensor in tensors_of(proto):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == INLINE:
                entry.value = model.path.name
    return bytes(proto.SerializeToString())


def _first_line(error: Exception) -> str:
    """The runtime's own words without its banner and trace."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    text = re.sub(r"^Load model( from \S+)? failed: ?", "", text.split(" : ", 3)[-1].strip())
    text = re.sub(r"(^|Status Message: )/\S+:\d+ .*\) ", r"\1", text)  # where in its own source it happened
    return text[:400]
