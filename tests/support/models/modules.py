"""One table of small torch models for every test that needs one: the torch half of the table in cases.py.

Parameters are random and seeded, never the identity. A model is built anew by each call of ``build``, so that a test
may change what it is given.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from normswap.layer import Role

__all__ = ["MODULES", "Build", "C", "Inputs", "ModuleCase", "called", "randomized", "seeded", "shaped"]

C = 4

Build: TypeAlias = Callable[[], nn.Module]
Inputs: TypeAlias = Callable[[], "tuple[Any, ...] | dict[str, Any]"]


@dataclass(frozen=True)
class ModuleCase:
    """A model and what is to be found in it.

    Attributes:
        build: Makes the model, always the same one.
        inputs: Makes the arguments of its forward, by position or by keyword.
        roles: The role of each BatchNorm, by the layer's name.
        refused: The layers that a target cannot take, with words of the reason, by target and by the layer's name.
        traceable: Whether torch.fx.symbolic_trace takes the model.
        exportable: Whether torch.export.export takes the model.
    """

    build: Build
    inputs: Inputs
    roles: dict[str, Role]
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    traceable: bool = True
    exportable: bool = True


def randomized(model: nn.Module, seed: int, *, spread: float = 1.0) -> nn.Module:
    """Give every BatchNorm of a model parameters and statistics that are not the identity, in place.

    Weight is from U(0.5, 2), bias from U(-1, 1), running mean from U(-0.5, 0.5), running variance from U(0.5, 2).

    Args:
        model: The model, which is returned too.
        seed: Of the values.
        spread: Shrinks the ranges towards the identity, so that activations of deep models stay finite.
    """
    generator = torch.Generator().manual_seed(seed)
    ranges = {"weight": (1, 0.5, 2), "bias": (0, -1, 1), "running_mean": (0, -0.5, 0.5), "running_var": (1, 0.5, 2)}
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, _BatchNorm):
                continue
            for name, (identity, low, high) in ranges.items():
                value = getattr(module, name)
                if value is not None and not nn.parameter.is_lazy(value):
                    drawn = torch.empty(value.shape).uniform_(low, high, generator=generator)
                    value.copy_(identity + spread * (drawn - identity))
    return model


def seeded(make: Build, *, train: bool = False, seed: int = 0) -> Build:
    """Return a function that makes the same random model each time, in eval or in train mode."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return randomized(make(), seed).train(train)

    return build


def shaped(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that makes the same random tensors each time, with mean 0.5 and variance 4."""

    def inputs() -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        return tuple((torch.randn(shape, generator=generator) * 2 + 0.5).to(dtype) for shape in shapes)

    return inputs


def called(model: nn.Module, inputs: tuple[Any, ...] | Mapping[str, Any]) -> Any:
    """Call a model with arguments by position or by keyword."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


# Models.

_CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Block(nn.Module):
    """A convolution with a bias, a norm, a nonlinearity."""

    def __init__(self, norm: nn.Module, channels: int = 3, dims: int = 2) -> None:
        super().__init__()
        self.conv = _CONVS[dims](channels, C, 3, padding=1)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(x)))


class Twice(nn.Module):
    """One norm, called on two resolutions."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(C)
        self.pool = nn.AvgPool2d(factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.norm(x))
        return y, self.norm(self.pool(y))


class TwoNames(nn.Module):
    """One norm under two names of one parent."""

    def __init__(self, factor: int = 1, *, call_both: bool = True) -> None:
        super().__init__()
        self.a = self.b = nn.BatchNorm2d(C)
        self.pool = nn.AvgPool2d(factor)
        self.call_both = call_both

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(torch.relu(self.a(x)))
        if self.call_both:
            y = self.b(y)
        return y


class Collections(nn.Module):
    """Norms in a ModuleList, a ModuleDict and a nested Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Conv2d(3, C, 1), nn.BatchNorm2d(C)])
        self.heads = nn.ModuleDict({"left": nn.BatchNorm2d(C), "right": nn.Sequential(nn.ReLU(), nn.BatchNorm2d(C))})

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return torch.cat([head(x) for head in self.heads.values()], dim=1)


class Outputs(nn.Module):
    """Two norms, whose results go out in a container."""

    def __init__(self, container: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(C)
        self.second = nn.BatchNorm2d(C)
        self.container = container

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        return self.container(y, self.second(torch.relu(y)))


class ByKeyword(Block):
    """A forward whose arguments have to be named."""

    def forward(self, *, image: Tensor, gain: Tensor | None = None) -> Tensor:  # type: ignore[override]  # on purpose
        y = super().forward(image)
        return y if gain is None else y * gain


class CallsForward(Block):
    """A parent that goes past the norm's __call__, and so past its hooks."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm.forward(self.conv(x)))


class ByShape(nn.Module):
    """Control flow on the input's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.BatchNorm2d(C)
        self.large = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        while x.shape[-1] > 4:
            x = F.avg_pool2d(self.large(x), 2)
        return torch.relu(self.small(x))


class ByValue(Block):
    """Control flow on the input's values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.abs().mean() > 0 else -x)


class Branches(nn.Module):
    """A norm in each branch of a torch.cond."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(C)
        self.other = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.cond(x.mean() > 0, lambda x: self.norm(x).tanh(), lambda x: self.other(x).sin(), (x,))
        return y


class Checkpointed(Block):
    """A norm whose activations are computed again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, checkpoint(super().forward, x, use_reentrant=False))


class Remembers(Block):
    """A buffer that every call changes and the next one reads."""

    calls: Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(norm)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class InPlace(Block):
    """Neighbours that write into the norm's output, and into its input after it has run."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = F.leaky_relu_(self.norm(x), 0.1)
        return y.add_(x.mul_(3))


class ReadsAttributes(Block):
    """A parent that reads the norm's attributes."""

    def forward(self, x: Tensor) -> Tensor:
        norm = cast(nn.BatchNorm2d, self.norm)
        return super().forward(x) + norm.weight.sum() * norm.eps + norm.num_features


class Idle(Block):
    """A norm that is never called."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(norm)
        self.idle = nn.BatchNorm2d(C)


class BatchNormReLU(nn.BatchNorm2d):
    """BatchNorm fused with an activation, which a plain swap would lose."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class AnyRankBatchNorm(_BatchNorm):
    """A BatchNorm that takes every rank; its forward is torch's."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass


class FunctionalNorm(nn.Module):
    """BatchNorm by a functional call, with buffers of its own."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(C) + 0.5)
        self.shift = nn.Parameter(torch.rand(C) - 0.5)
        self.register_buffer("running_mean", torch.rand(C) - 0.5)
        self.register_buffer("running_var", torch.rand(C) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.scale, self.shift, self.training, 0.1, 1e-3)


class StandardizedConv(nn.Conv2d):
    """A convolution whose weight is standardized by a batch_norm call (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        standard = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, standard.reshape_as(self.weight), self.bias, padding=self.padding)


class Exponential(nn.Module):
    """A parametrization that keeps a weight positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


# How a norm is dressed. Each takes a new BatchNorm and returns it changed.


def _without_bias() -> nn.Module:
    norm = nn.BatchNorm2d(C)
    norm.register_parameter("bias", None)  # as the argument bias=False does, which not every torch has
    return norm


def _without_statistics() -> nn.Module:
    """Make a BatchNorm whose running statistics were taken away, as people do to keep a GAN in batch statistics."""
    norm = nn.BatchNorm2d(C)
    norm.running_mean = norm.running_var = None
    return norm


def _untracked() -> nn.Module:
    """Make a BatchNorm that stops tracking: its running statistics stay, and eval mode goes on using them."""
    norm = nn.BatchNorm2d(C)
    norm.track_running_stats = False
    return norm


def _frozen() -> nn.Module:
    return nn.BatchNorm2d(C).requires_grad_(False)


def _parametrized() -> nn.Module:
    norm = randomized(nn.BatchNorm2d(C), 0)
    parametrize.register_parametrization(norm, "weight", Exponential())
    return norm


def _doubled(module: nn.Module, args: Any, y: Tensor) -> Tensor:
    return 2 * y


def _raised(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0] + 1,)


def _hooked() -> nn.Module:
    norm = nn.BatchNorm2d(C)
    norm.register_forward_hook(_doubled)
    norm.register_forward_pre_hook(_raised)
    return norm


def _softplus_norm(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.softplus(nn.BatchNorm2d.forward(self, x))


def _patched() -> nn.Module:
    norm = nn.BatchNorm2d(C)
    norm.forward = types.MethodType(_softplus_norm, norm)  # type: ignore[method-assign]  # the case is that people do
    return norm


def _shared_parameters() -> nn.Module:
    """Make two BatchNorms with statistics of their own and one weight and bias."""
    first, second = nn.BatchNorm2d(C), nn.BatchNorm2d(C, eps=0.1)
    second.weight, second.bias = first.weight, first.bias
    return nn.Sequential(first, nn.ReLU(), second)


def _materialized() -> nn.Module:
    model = Block(nn.LazyBatchNorm2d())
    model(torch.zeros(2, 3, 6, 5))
    return model


def _spectral() -> nn.Module:
    """Make a block whose convolution keeps a vector that each call in train mode moves, as discriminators do."""
    block = Block(nn.BatchNorm2d(C))
    spectral_norm(block.conv)
    return block


def _weight_normalized() -> nn.Module:
    """Make a block whose convolution has weight norm, and with it a hook that is a method of the convolution."""
    block = Block(nn.BatchNorm2d(C))
    weight_norm(block.conv)
    return block


def _shared_block() -> nn.Module:
    block = Block(nn.BatchNorm2d(C), channels=C)
    return nn.Sequential(block, nn.Sequential(nn.ReLU(), block))


def _partly_frozen() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(C), nn.ReLU(), nn.BatchNorm2d(C)).train()
    model[0].eval()
    return model


def _with_dropout(*, train_norm: bool) -> nn.Module:
    """Put a dropout that drops beside a BatchNorm."""
    model = nn.Sequential(nn.Dropout2d(0.5), nn.BatchNorm2d(C), nn.Dropout(0.2))
    model[1].train(train_norm)
    return model


# The table.


def _in_given_modes(make: Build) -> Build:
    """Return a function that makes a seeded model and leaves the mode of each module as ``make`` set it."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return randomized(make(), 0)

    return build


def _block(norm: Build, *, train: bool = False, dtype: torch.dtype = torch.float32, dims: int = 2) -> Build:
    return seeded(lambda: Block(norm(), dims=dims).to(dtype), train=train)


def _batch_norm() -> nn.Module:
    return nn.BatchNorm2d(C)


def _call(owner: type[nn.Module], path: str) -> str:
    """Name the F.batch_norm call in the forward of a class of this file."""
    lines, first = inspect.getsourcelines(owner)
    return f"{path}:batch_norm@modules.py:{first + next(i for i, line in enumerate(lines) if 'F.batch_norm(' in line)}"


def _refused(words: str, *names: str, by: str = "instance") -> dict[str, dict[str, str]]:
    """Say that these layers are refused with these words, by the targets named in one string."""
    return {target: dict.fromkeys(names, words) for target in by.split()}


_IMAGE = shaped((2, 3, 6, 5))
_MAPS = shaped((2, C, 6, 5))
_ALL = "instance batch-stat population blend group"
_NO_STATISTICS = "none are stored"
_FUNCTIONAL = _call(FunctionalNorm, "norm")
_ON_A_WEIGHT = _call(StandardizedConv, "0")

MODULES: dict[str, ModuleCase] = {
    # Ranks and classes.
    "BatchNorm1d, (N, C, L)": ModuleCase(
        _block(lambda: nn.BatchNorm1d(C), dims=1), shaped((2, 3, 7)), {"norm": "eval"}
    ),
    "BatchNorm1d, (N, C, L), train": ModuleCase(
        _block(lambda: nn.BatchNorm1d(C), dims=1, train=True), shaped((2, 3, 7)), {"norm": "train"}
    ),
    "BatchNorm1d, (N, C)": ModuleCase(
        seeded(lambda: nn.Sequential(nn.Linear(3, C), nn.BatchNorm1d(C), nn.ReLU())),
        shaped((5, 3)),
        {"1": "eval"},
        _refused("rank 2", "1"),
    ),
    "BatchNorm1d, (N, C), train": ModuleCase(
        seeded(lambda: nn.Sequential(nn.Linear(3, C), nn.BatchNorm1d(C), nn.ReLU()), train=True),
        shaped((5, 3)),
        {"1": "train"},
        _refused("rank 2", "1"),
    ),
    "BatchNorm2d": ModuleCase(_block(_batch_norm), _IMAGE, {"norm": "eval"}),
    "BatchNorm2d, train": ModuleCase(_block(_batch_norm, train=True), _IMAGE, {"norm": "train"}),
    "BatchNorm3d": ModuleCase(
        _block(lambda: nn.BatchNorm3d(C, eps=1e-3), dims=3), shaped((2, 3, 3, 4, 2)), {"norm": "eval"}
    ),
    "BatchNorm3d, train": ModuleCase(
        _block(lambda: nn.BatchNorm3d(C, eps=1e-3), dims=3, train=True), shaped((2, 3, 3, 4, 2)), {"norm": "train"}
    ),
    "SyncBatchNorm": ModuleCase(_block(lambda: nn.SyncBatchNorm(C)), _IMAGE, {"norm": "eval"}),
    "SyncBatchNorm, train": ModuleCase(_block(lambda: nn.SyncBatchNorm(C), train=True), _IMAGE, {"norm": "train"}),
    "LazyBatchNorm2d, materialized": ModuleCase(seeded(_materialized), _IMAGE, {"norm": "eval"}),
    "LazyBatchNorm2d, not materialized": ModuleCase(
        _block(nn.LazyBatchNorm2d),
        _IMAGE,
        {"norm": "eval"},
        _refused("not materialized", "norm", by="instance batch-stat blend group"),
        exportable=False,
    ),
    "a subclass with torch's forward": ModuleCase(_block(lambda: AnyRankBatchNorm(C)), _IMAGE, {"norm": "eval"}),
    "a subclass with a forward of its own": ModuleCase(
        _block(lambda: BatchNormReLU(C)),
        _IMAGE,
        {"norm": "unknown"},
        _refused("a forward of its own", "norm", by=_ALL),
        traceable=False,
    ),
    "a forward patched onto the instance": ModuleCase(
        _block(_patched), _IMAGE, {"norm": "unknown"}, _refused("replaced on the object", "norm", by=_ALL)
    ),
    # Parameters and statistics.
    "affine=False": ModuleCase(_block(lambda: nn.BatchNorm2d(C, affine=False)), _IMAGE, {"norm": "eval"}),
    "without bias": ModuleCase(_block(_without_bias), _IMAGE, {"norm": "eval"}),
    "without bias, train": ModuleCase(_block(_without_bias, train=True), _IMAGE, {"norm": "train"}),
    "momentum=None": ModuleCase(_block(lambda: nn.BatchNorm2d(C, momentum=None)), _IMAGE, {"norm": "eval"}),
    "momentum=None, train": ModuleCase(
        _block(lambda: nn.BatchNorm2d(C, momentum=None), train=True), _IMAGE, {"norm": "train"}, exportable=False
    ),
    "track_running_stats=False": ModuleCase(
        _block(lambda: nn.BatchNorm2d(C, track_running_stats=False)),
        _IMAGE,
        {"norm": "batch-stat"},
        _refused(_NO_STATISTICS, "norm", by="population blend"),
    ),
    "track_running_stats=False, train": ModuleCase(
        _block(lambda: nn.BatchNorm2d(C, track_running_stats=False), train=True),
        _IMAGE,
        {"norm": "batch-stat"},
        _refused(_NO_STATISTICS, "norm", by="population blend"),
    ),
    "running statistics taken away": ModuleCase(
        _block(_without_statistics),
        _IMAGE,
        {"norm": "batch-stat"},
        _refused(_NO_STATISTICS, "norm", by="population blend"),
    ),
    "track_running_stats switched off later": ModuleCase(_block(_untracked), _IMAGE, {"norm": "eval"}),
    "track_running_stats switched off later, train": ModuleCase(
        _block(_untracked, train=True), _IMAGE, {"norm": "train"}
    ),
    "requires_grad=False": ModuleCase(_block(_frozen), _IMAGE, {"norm": "eval"}),
    "parametrized weight": ModuleCase(_block(_parametrized), _IMAGE, {"norm": "eval"}),
    "shared parameters": ModuleCase(seeded(_shared_parameters), _MAPS, {"0": "eval", "2": "eval"}),
    "float16": ModuleCase(
        _block(_batch_norm, dtype=torch.float16), shaped((2, 3, 6, 5), dtype=torch.float16), {"norm": "eval"}
    ),
    "float16 with float32 parameters": ModuleCase(
        seeded(lambda: nn.Sequential(nn.BatchNorm2d(C), nn.Tanh())),
        shaped((2, C, 6, 5), dtype=torch.float16),
        {"0": "eval"},
    ),
    "bfloat16": ModuleCase(
        _block(_batch_norm, dtype=torch.bfloat16), shaped((2, 3, 6, 5), dtype=torch.bfloat16), {"norm": "eval"}
    ),
    "bfloat16, train": ModuleCase(
        _block(_batch_norm, dtype=torch.bfloat16, train=True),
        shaped((2, 3, 6, 5), dtype=torch.bfloat16),
        {"norm": "train"},
    ),
    "float64": ModuleCase(
        _block(_batch_norm, dtype=torch.float64), shaped((2, 3, 6, 5), dtype=torch.float64), {"norm": "eval"}
    ),
    # Inputs and outputs.
    "channels_last": ModuleCase(
        _block(_batch_norm), lambda: (_IMAGE()[0].to(memory_format=torch.channels_last),), {"norm": "eval"}
    ),
    "one spatial element": ModuleCase(
        seeded(lambda: nn.Sequential(nn.BatchNorm2d(C), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(C))),
        _MAPS,
        {"0": "eval", "2": "eval"},
        _refused("one spatial element", "2"),
    ),
    "a tuple of outputs": ModuleCase(
        seeded(lambda: Outputs(lambda a, b: (a, [b, a + b]))), _MAPS, {"first": "eval", "second": "eval"}
    ),
    "a dict of outputs": ModuleCase(
        seeded(lambda: Outputs(lambda a, b: {"a": a, "b": {"c": b}})), _MAPS, {"first": "eval", "second": "eval"}
    ),
    "inputs by keyword": ModuleCase(
        seeded(lambda: ByKeyword(nn.BatchNorm2d(C))),
        lambda: {"image": _IMAGE()[0], "gain": torch.tensor(0.5)},
        {"norm": "eval"},
    ),
    # Places.
    # A BatchNorm looks at its input's rank, which stops symbolic_trace wherever it does not keep the module whole.
    "the root": ModuleCase(seeded(_batch_norm), _MAPS, {"BatchNorm2d": "eval"}, traceable=False),
    "the root, train": ModuleCase(seeded(_batch_norm, train=True), _MAPS, {"BatchNorm2d": "train"}, traceable=False),
    "ModuleList, ModuleDict, Sequential": ModuleCase(
        seeded(Collections), _IMAGE, {"steps.1": "eval", "heads.left": "eval", "heads.right.1": "eval"}
    ),
    "DataParallel": ModuleCase(
        seeded(lambda: nn.DataParallel(Block(nn.BatchNorm2d(C)))), _IMAGE, {"norm": "eval"}, traceable=False
    ),
    "hooks": ModuleCase(_block(_hooked), _IMAGE, {"norm": "eval"}),
    "hooks, train": ModuleCase(_block(_hooked, train=True), _IMAGE, {"norm": "train"}),
    "forward called past __call__": ModuleCase(
        seeded(lambda: CallsForward(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval"}, traceable=False
    ),
    "activation checkpointing": ModuleCase(seeded(lambda: Checkpointed(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval"}),
    "control flow on the shape": ModuleCase(
        seeded(ByShape), shaped((2, C, 8, 16)), {"small": "eval", "large": "eval"}, traceable=False
    ),
    "control flow on the values": ModuleCase(
        seeded(lambda: ByValue(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval"}, traceable=False, exportable=False
    ),
    "torch.cond": ModuleCase(seeded(Branches), _MAPS, {"norm": "eval", "other": "eval"}, traceable=False),
    "a buffer that every call changes": ModuleCase(
        seeded(lambda: Remembers(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval"}
    ),
    "neighbours that write in place": ModuleCase(seeded(lambda: InPlace(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval"}),
    "a parent that reads weight and eps": ModuleCase(
        seeded(lambda: ReadsAttributes(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval"}
    ),
    "spectral norm beside it": ModuleCase(seeded(_spectral), _IMAGE, {"norm": "eval"}),
    "spectral norm beside it, train": ModuleCase(seeded(_spectral, train=True), _IMAGE, {"norm": "train"}),
    "weight norm beside it": ModuleCase(seeded(_weight_normalized), _IMAGE, {"norm": "eval"}),
    "never called": ModuleCase(seeded(lambda: Idle(nn.BatchNorm2d(C))), _IMAGE, {"norm": "eval", "idle": "eval"}),
    "torch.compile": ModuleCase(
        seeded(lambda: cast(nn.Module, torch.compile(Block(nn.BatchNorm2d(C)), backend="eager"))),
        _IMAGE,
        {"norm": "eval"},
        traceable=False,
    ),
    # One module, several places.
    "called twice": ModuleCase(seeded(lambda: Twice(2)), _MAPS, {"norm": "eval"}),
    "called twice, train": ModuleCase(seeded(lambda: Twice(2), train=True), _MAPS, {"norm": "train"}),
    "called twice, once on one element": ModuleCase(
        seeded(lambda: Twice(4)), shaped((2, C, 4, 4)), {"norm": "eval"}, _refused("one spatial element", "norm")
    ),
    "two names": ModuleCase(seeded(TwoNames), _MAPS, {"a": "eval", "b": "eval"}),
    "two names, train": ModuleCase(seeded(TwoNames, train=True), _MAPS, {"a": "train", "b": "train"}),
    "two names, one called": ModuleCase(seeded(lambda: TwoNames(call_both=False)), _MAPS, {"a": "eval", "b": "eval"}),
    "two names, one of them on one element": ModuleCase(
        seeded(lambda: TwoNames(4)),
        shaped((2, C, 4, 4)),
        {"a": "eval", "b": "eval"},
        _refused("one spatial element", "a", "b"),
    ),
    "a block in two places": ModuleCase(seeded(_shared_block), _MAPS, {"0.norm": "eval", "1.1.norm": "eval"}),
    # Modes.
    "some in eval mode, some in train mode": ModuleCase(
        _in_given_modes(_partly_frozen), _MAPS, {"0": "eval", "2": "train"}
    ),
    "dropout in train mode": ModuleCase(_in_given_modes(lambda: _with_dropout(train_norm=False)), _MAPS, {"1": "eval"}),
    "dropout and BatchNorm in train mode": ModuleCase(
        _in_given_modes(lambda: _with_dropout(train_norm=True)), _MAPS, {"1": "train"}
    ),
    # Functional calls.
    "F.batch_norm": ModuleCase(
        seeded(lambda: Block(FunctionalNorm())),
        _IMAGE,
        {_FUNCTIONAL: "eval"},
        _refused("functional call", _FUNCTIONAL, by="instance batch-stat blend group"),
    ),
    "F.batch_norm, train": ModuleCase(
        seeded(lambda: Block(FunctionalNorm()), train=True),
        _IMAGE,
        {_FUNCTIONAL: "train"},
        _refused("functional call", _FUNCTIONAL, by=_ALL),
    ),
    "F.batch_norm beside a module": ModuleCase(
        seeded(lambda: nn.Sequential(nn.BatchNorm2d(3), Block(FunctionalNorm()))),
        _IMAGE,
        {"0": "eval", _FUNCTIONAL.replace("norm:", "1.norm:"): "eval"},
        _refused("functional call", _FUNCTIONAL.replace("norm:", "1.norm:"), by="instance batch-stat blend group"),
    ),
    "F.batch_norm on a weight": ModuleCase(
        seeded(lambda: nn.Sequential(StandardizedConv(3, C, 3, padding=1), nn.BatchNorm2d(C))),
        _IMAGE,
        {_ON_A_WEIGHT: "weight", "1": "eval"},
    ),
    # Nothing to find.
    "InstanceNorm2d": ModuleCase(
        _block(lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True)), _IMAGE, {}
    ),
    "GroupNorm": ModuleCase(_block(lambda: nn.GroupNorm(2, C)), _IMAGE, {}),
    "no norm at all": ModuleCase(_block(nn.Identity), _IMAGE, {}),
}
