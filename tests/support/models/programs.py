"""One table of small exported programs: training IR and decomposed, static and dynamic, train and eval.

Parameters are random and seeded, never the identity. ``build`` exports anew, so that a test may change the program.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from normswap.layer import Role
from support.models.modules import C, seeded, shaped

__all__ = ["PROGRAMS", "ProgramCase", "exported", "quietly"]


@dataclass(frozen=True)
class ProgramCase:
    """A program and what is to be found in it.

    Attributes:
        build: Makes the program, always the same one.
        roles: The role of each BatchNorm, by the layer's name.
        refused: Layers that no target can take, with words of the reason.
        no_instance: Layers that instance statistics leave nothing of, with words of the reason.
        removed: How many stored tensors a conversion to instance removes; None where that is not looked at.
    """

    build: Callable[[], ExportedProgram]
    roles: dict[str, Role]
    refused: dict[str, str] = field(default_factory=dict)
    no_instance: dict[str, str] = field(default_factory=dict)
    removed: int | None = None


def quietly(call: Callable[[], Any]) -> Any:
    """Call something of torch that warns of its own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def exported(
    make: Callable[[], nn.Module],
    *shapes: tuple[int, ...],
    train: bool = False,
    decomposed: bool = False,
    dtype: torch.dtype = torch.float32,
    dynamic: Any = None,
    strict: bool = False,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    keep: tuple[str, ...] = (),
) -> Callable[[], ExportedProgram]:
    """Return a function that exports a seeded random model."""

    def build() -> ExportedProgram:
        model = seeded(make, train=train)().to(dtype)
        inputs = args if args is not None else shaped(*shapes, dtype=dtype)()

        def make_program() -> ExportedProgram:
            program = export(
                model,
                inputs,
                dict(kwargs or {}),
                dynamic_shapes=dynamic,
                strict=strict,
                preserve_module_call_signature=keep,
            )
            return program.run_decompositions() if decomposed else program

        program = quietly(make_program)
        assert isinstance(program, ExportedProgram)
        return program

    return build


class Net(nn.Module):
    """Two convolutions with a BatchNorm each; the second has no affine parameters unless told."""

    def __init__(self, *, affine: bool = True, track: bool = True, dims: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
        self.conv = conv(3, C, 3, padding=1)
        self.bn = norm(C, eps=1e-4, track_running_stats=track)
        self.head = conv(C, 2, 1)
        self.last = norm(2, affine=affine, track_running_stats=track)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.head(F.relu(self.bn(self.conv(x)), inplace=True)))


class Narrow(nn.Module):
    """A BatchNorm of float32 parameters between tensors of half precision, as autocast leaves it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.narrow = dtype

    def forward(self, x: Tensor) -> Any:
        return self.bn(x.to(self.narrow)).relu()


class Twice(nn.Module):
    """One BatchNorm called twice, on maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Any:
        return self.bn(F.avg_pool2d(torch.tanh(self.bn(x)) * 3, 2))


class TwoNames(nn.Module):
    """One BatchNorm under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.BatchNorm2d(3)
        self.b = self.a

    def forward(self, x: Tensor) -> Any:
        return self.b(torch.tanh(self.a(x)))


class Functional(nn.Module):
    """A call of F.batch_norm on buffers of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(3) + 0.5)
        self.register_buffer("mean", torch.rand(3))
        self.register_buffer("var", torch.rand(3) + 0.5)

    def forward(self, x: Tensor) -> Any:
        assert isinstance(self.mean, Tensor) and isinstance(self.var, Tensor)
        return F.batch_norm(x, self.mean, self.var, self.gamma, None, self.training, 0.1, 1e-3)


class Standardized(nn.Module):
    """A convolution whose weight is standardised by F.batch_norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, C, 3)
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Any:
        weight = self.conv.weight
        flat = F.batch_norm(weight.reshape(1, C, -1), None, None, None, None, True)
        return self.bn(F.conv2d(x, flat.reshape_as(weight), self.conv.bias))


class Mixed(nn.Module):
    """BatchNorms of all kinds beside norms that are none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(3)
        self.own = nn.BatchNorm2d(3, track_running_stats=False)
        self.instance = nn.InstanceNorm2d(3, affine=True)
        self.group = nn.GroupNorm(3, 3)
        self.trained = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.3)

    def train(self, mode: bool = True) -> Mixed:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.trained(self.dropout(self.group(self.instance(self.own(self.frozen(x))))))


class Branches(nn.Module):
    """A BatchNorm inside torch.cond and after it, a buffer that is not stored, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm2d(3)
        self.bn = nn.BatchNorm2d(3)
        self.register_buffer("scale", torch.rand(3, 1, 1), persistent=False)
        self.offset = torch.tensor([2.0])

    def forward(self, x: Tensor, flag: Tensor) -> Any:
        y = torch.cond(flag, lambda z: self.inner(z), lambda z: z * 2, (x,))
        return self.bn(y) * self.scale + self.offset


class WithoutGradients(nn.Module):
    """A BatchNorm under torch.no_grad, which export wraps in a graph of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.last = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            y = self.bn(x)
        return self.last(y + x)


class ReturnsStatistics(nn.Module):
    """Running statistics are an output, after the update."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> tuple[Any, Tensor]:
        y = self.other(self.bn(x))
        assert self.bn.running_mean is not None
        return y, self.bn.running_mean


class TrainedThenFrozen(nn.Module):
    """A BatchNorm in train mode, then the same statistics in eval mode, updated."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Any:
        y = self.bn(x)
        return y + F.batch_norm(x, self.bn.running_mean, self.bn.running_var, None, None, False)


class Structured(nn.Module):
    """Nested inputs and outputs, keywords, a number, a counter of calls that is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, options: dict[str, Tensor], *, gain: float) -> dict[str, Any]:
        assert isinstance(self.calls, Tensor)
        self.calls.add_(1)
        y = self.bn(x) * options["scale"] * gain
        return {"y": y, "more": (options["scale"] + self.calls, None, 3)}


class WritesInPlace(nn.Module):
    """Operators that write into their inputs, before and after a BatchNorm, and into the program's input."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Any:
        x.mul_(2)
        y = self.bn(x)
        x.add_(1)
        y.relu_()
        return y * x


class KeepsItsFormat(nn.Module):
    """What follows the BatchNorm views channels_last memory as a matrix, which no other memory allows."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Any:
        y = self.bn(x.contiguous(memory_format=torch.channels_last))
        return y.permute(0, 2, 3, 1).view(-1, 3)


IMAGE = (2, 3, 8, 6)
BATCH = {0: Dim("batch", min=1, max=64)}
SIZES = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
NET: dict[str, Role] = {"bn": "eval", "last": "eval"}
TRAINED: dict[str, Role] = {"bn": "train", "last": "train"}

PROGRAMS: dict[str, ProgramCase] = {
    "eval": ProgramCase(exported(Net, IMAGE), NET, removed=6),
    "eval, decomposed": ProgramCase(exported(Net, IMAGE, decomposed=True), NET, removed=6),
    "eval, strict": ProgramCase(exported(Net, IMAGE, strict=True), NET, removed=6),
    "train": ProgramCase(exported(Net, IMAGE, train=True), TRAINED, removed=6),
    "train, decomposed": ProgramCase(exported(Net, IMAGE, train=True, decomposed=True), TRAINED, removed=6),
    "train, strict": ProgramCase(exported(Net, IMAGE, train=True, strict=True), TRAINED, removed=6),
    "dynamic batch": ProgramCase(exported(Net, IMAGE, dynamic=(BATCH,)), NET, removed=6),
    "dynamic batch and sizes, train": ProgramCase(exported(Net, IMAGE, dynamic=(SIZES,), train=True), TRAINED),
    "dynamic batch and sizes, decomposed": ProgramCase(exported(Net, IMAGE, dynamic=(SIZES,), decomposed=True), NET),
    "batch of 1": ProgramCase(exported(Net, (1, 3, 8, 6), train=True), TRAINED),
    "float16": ProgramCase(exported(Net, IMAGE, dtype=torch.float16), NET),
    "bfloat16, train": ProgramCase(exported(Net, IMAGE, dtype=torch.bfloat16, train=True), TRAINED),
    "float64, decomposed": ProgramCase(exported(Net, IMAGE, dtype=torch.float64, decomposed=True), NET),
    "bfloat16, float32 parameters": ProgramCase(exported(lambda: Narrow(torch.bfloat16), IMAGE), {"bn": "eval"}),
    "float16, float32 parameters, train": ProgramCase(
        exported(lambda: Narrow(torch.float16), IMAGE, train=True), {"bn": "train"}
    ),
    "rank 3": ProgramCase(exported(lambda: Net(dims=1), (2, 3, 9)), NET),
    "rank 5": ProgramCase(exported(lambda: Net(dims=3), (2, 3, 4, 5, 3), train=True), TRAINED),
    "affine=False": ProgramCase(exported(lambda: Net(affine=False), IMAGE), NET),
    "no running statistics": ProgramCase(
        exported(lambda: Net(track=False), IMAGE), {"bn": "batch-stat", "last": "batch-stat"}, removed=0
    ),
    "no running statistics, decomposed": ProgramCase(
        exported(lambda: Net(track=False, affine=False), IMAGE, decomposed=True),
        {"bn": "batch-stat", "last": "batch-stat"},
    ),
    "root module": ProgramCase(
        exported(lambda: nn.BatchNorm2d(3), IMAGE, train=True), {"batch_norm": "train"}, removed=3
    ),
    "rank 2": ProgramCase(
        exported(lambda: nn.Sequential(nn.Linear(3, C), nn.BatchNorm1d(C)), (5, 3)),
        {"1": "eval"},
        no_instance={"1": "rank 2"},
    ),
    "called twice": ProgramCase(exported(Twice, IMAGE), {"bn": "eval", "bn#2": "eval"}, removed=3),
    "called twice, train": ProgramCase(exported(Twice, IMAGE, train=True), {"bn": "train", "bn#2": "train"}, removed=3),
    "called twice, train, decomposed": ProgramCase(
        exported(Twice, IMAGE, train=True, decomposed=True), {"bn": "train", "bn#2": "train"}, removed=3
    ),
    "two names": ProgramCase(exported(TwoNames, IMAGE), {"a": "eval", "b": "eval"}, removed=6),
    "two names, train": ProgramCase(exported(TwoNames, IMAGE, train=True), {"a": "train", "b": "train"}, removed=6),
    "two names, strict": ProgramCase(exported(TwoNames, IMAGE, strict=True), {"a": "eval", "a#2": "eval"}, removed=6),
    "functional": ProgramCase(exported(Functional, IMAGE), {"batch_norm": "eval"}, removed=2),
    "functional, train": ProgramCase(exported(Functional, IMAGE, train=True), {"batch_norm": "train"}, removed=2),
    "weight standardisation": ProgramCase(exported(Standardized, IMAGE), {"batch_norm": "weight", "bn": "eval"}),
    "mixed kinds, train": ProgramCase(
        exported(Mixed, IMAGE, train=True), {"frozen": "eval", "own": "batch-stat", "trained": "train"}, removed=6
    ),
    "mixed kinds, train, decomposed": ProgramCase(
        exported(Mixed, IMAGE, train=True, decomposed=True),
        {"frozen": "eval", "own": "batch-stat", "getitem_6": "instance", "trained": "train"},
    ),
    "branches": ProgramCase(
        exported(Branches, args=(*shaped(IMAGE)(), torch.tensor(True))),
        {"cond:true_graph_0/batch_norm": "eval", "bn": "eval"},
        refused={"cond:true_graph_0/batch_norm": "it stands in a graph that cond calls"},
    ),
    "without gradients": ProgramCase(
        exported(WithoutGradients, IMAGE, train=True),
        {"batch_norm:submod_1/bn": "train", "last": "train"},
        refused={"batch_norm:submod_1/bn": "run_decompositions"},
    ),
    "without gradients, decomposed": ProgramCase(
        exported(WithoutGradients, IMAGE, train=True, decomposed=True), {"getitem": "train", "last": "train"}, removed=6
    ),
    "statistics returned": ProgramCase(
        exported(ReturnsStatistics, IMAGE, train=True),
        {"bn": "train", "other": "train"},
        refused={"bn": "are read by output after it has updated them"},
    ),
    "statistics returned, decomposed": ProgramCase(
        exported(ReturnsStatistics, IMAGE, train=True, decomposed=True),
        {"bn": "train", "other": "train"},
        refused={"bn": "statistics) are read and would be gone"},
    ),
    "train, then eval": ProgramCase(
        exported(TrainedThenFrozen, IMAGE, train=True),
        {"bn": "train", "batch_norm_1": "eval"},
        refused={"bn": "are read by batch_norm_1 after it has updated them"},
    ),
    "train, then eval, decomposed": ProgramCase(
        exported(TrainedThenFrozen, IMAGE, train=True, decomposed=True),
        {"bn": "train", "getitem_5": "eval"},
        refused={"bn": "statistics) are read and would be gone"},
    ),
    "structured": ProgramCase(
        exported(
            Structured,
            args=(*shaped(IMAGE)(), {"scale": torch.full((1,), 1.5)}),
            kwargs={"gain": 2.0},
            train=True,
            decomposed=True,
        ),
        {"bn": "train"},
        removed=3,
    ),
    "writes in place": ProgramCase(exported(WritesInPlace, IMAGE, train=True), {"bn": "train"}, removed=3),
    "writes in place, decomposed": ProgramCase(
        exported(WritesInPlace, IMAGE, decomposed=True), {"bn": "eval"}, removed=3
    ),
    "memory format": ProgramCase(exported(KeepsItsFormat, IMAGE), {"bn": "eval"}, removed=3),
    "module signatures kept": ProgramCase(exported(Net, IMAGE, keep=("bn", "head"), train=True), TRAINED, removed=6),
}
