"""Wrong normalizations, written for every backend: what a verifier has to reject, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from normswap import Norm
from normswap.layer import Floats, NormLayer
from normswap.norms.base import Form, OnnxOps, by_name

__all__ = ["GROSS", "MUTANTS", "Mutant", "Wrong", "is_mutant"]


@dataclass(frozen=True)
class Wrong:
    """What a hand-written normalization does; with no argument it is right."""

    eps: float = 1.0  # factor
    weight: str = "scale"
    bias: str = "bias"
    unbiased: bool = False
    over: str = ""  # "batch": pools over the batch, "sample": does not, "channel": over channels too
    one_pass: bool = False  # E[x^2] - E[x]^2
    eps_outside: bool = False  # added to the standard deviation
    running: bool = False
    no_mean: bool = False


MUTANTS: dict[str, Wrong] = {
    "eps dropped": Wrong(eps=0.0),
    "eps 1 % larger": Wrong(eps=1.01),
    "eps 1 % smaller": Wrong(eps=0.99),
    "eps added to the standard deviation": Wrong(eps_outside=True),
    "weight dropped": Wrong(weight="none"),
    "bias dropped": Wrong(bias="none"),
    "weight and bias swapped": Wrong(weight="bias", bias="scale"),
    "weight is the running variance": Wrong(weight="var"),
    "bias is the running mean": Wrong(bias="mean"),
    "unbiased variance": Wrong(unbiased=True),
    "batch axis added": Wrong(over="batch"),
    "batch axis lost": Wrong(over="sample"),
    "statistics over the channels too": Wrong(over="channel"),
    "variance by E[x^2] - E[x]^2": Wrong(one_pass=True),
    "running statistics": Wrong(running=True),
    "mean not subtracted": Wrong(no_mean=True),
}


class Mutant(Norm):
    """A norm whose meaning is right and whose operators are wrong."""

    def __init__(self, right: Norm, wrong: Wrong) -> None:
        self.name, self.meaning, self.equals = right.name, right.meaning, right.equals
        self.by_sample = right.by_sample
        reads = wrong.running or {wrong.weight, wrong.bias} & {"mean", "var"}
        self.trains = right.trains and not reads  # so that running statistics are there to be read
        self.right, self.wrong = right, wrong
        self.forms = by_name(Form("mutant", lambda ops: emit(ops, wrong, right.name)))

    def refuse(self, layer: NormLayer) -> str | None:
        return self.right.refuse(layer)

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.right.moments(x, layer)

    def count(self, shape: tuple[int, ...]) -> int:
        return self.right.count(shape)

    def torch_kernel(self) -> Any:
        return WrongKernel(self.wrong, self.name)


@dataclass(frozen=True)
class WrongKernel:
    """Normalizes by ATen operators, as ``wrong`` says: on tensors, and on the proxies of a graph."""

    wrong: Wrong
    name: str

    @property
    def forms(self) -> Mapping[str, Any]:
        return {"by hand": self}

    def __call__(self, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> Any:
        return self.export(x, weight, bias, mean, var, eps, rank=x.dim(), dtype=x.dtype)

    def export(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        mean: Any,
        var: Any,
        eps: float,
        *,
        rank: int,
        dtype: torch.dtype,
        param_dtype: torch.dtype | None = None,
    ) -> Any:
        wrong, aten = self.wrong, torch.ops.aten
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        batch = (self.name == "batch-stat" or wrong.over in ("batch", "channel")) and wrong.over != "sample"
        axes = [*([0] if batch else []), *([1] if wrong.over == "channel" else []), *range(2, rank)]

        def column(parameter: Any) -> Any:
            wide = aten._to_copy.default(parameter, dtype=compute)
            return aten.view.default(wide, [1, -1] + [1] * (rank - 2))

        def average(value: Any) -> Any:
            return aten.mean.dim(value, axes, True) if axes else value

        parameters = {"scale": weight, "bias": bias, "mean": mean, "var": var}
        x = aten._to_copy.default(x, dtype=compute)
        mu = column(mean) if wrong.running or self.name == "population" else average(x)
        d = x if wrong.no_mean else aten.sub.Tensor(x, mu)
        if wrong.running or self.name == "population":
            v = column(var)
        elif wrong.one_pass:
            v = aten.sub.Tensor(average(aten.mul.Tensor(x, x)), aten.mul.Tensor(mu, mu))
        else:
            c = aten.sub.Tensor(x, mu)
            v = average(aten.mul.Tensor(c, c))
        if wrong.unbiased:  # times n / (n - 1), n = sum of ones
            ones = aten.ones_like.default(x)
            n = aten.sum.dim_IntList(ones, axes, True) if axes else ones
            v = aten.div.Tensor(aten.mul.Tensor(v, n), aten.sub.Tensor(n, 1))
        factor = eps * wrong.eps
        if wrong.eps_outside:
            std = aten.add.Tensor(aten.sqrt.default(v), factor)
        else:
            std = aten.sqrt.default(aten.add.Tensor(v, factor))
        y = aten.div.Tensor(d, std)
        if wrong.weight != "none":
            y = aten.mul.Tensor(y, column(parameters[wrong.weight]))
        if wrong.bias != "none":
            y = aten.add.Tensor(y, column(parameters[wrong.bias]))
        return aten._to_copy.default(y, dtype=dtype)


def emit(ops: OnnxOps, wrong: Wrong, name: str) -> None:
    """Normalize by primitives, as ``wrong`` says."""
    compute = "float64" if ops.dtype == "float64" else "float32"
    rank = ops.rank or 4
    spatial = list(range(2, rank))
    batch = (name == "batch-stat" or wrong.over in ("batch", "channel")) and wrong.over != "sample"
    axes = [*([0] if batch else []), *([1] if wrong.over == "channel" else []), *spatial]

    def column(parameter: str) -> str:
        value = ops.cast(getattr(ops, parameter), ops.param_dtype, compute)
        return ops.op("Reshape", value, ops.ints([1, -1] + [1] * (rank - 2)))

    def mean(value: str) -> str:
        return ops.reduce_mean(value, axes) if axes else value

    x = ops.cast(ops.x, ops.dtype, compute)
    mu = column("mean") if wrong.running or name == "population" else mean(x)
    d = x if wrong.no_mean else ops.op("Sub", x, mu)
    if wrong.running or name == "population":
        var = column("var")
    elif wrong.one_pass:
        var = ops.op("Sub", mean(ops.op("Mul", x, x)), ops.op("Mul", mu, mu))
    else:
        c = ops.op("Sub", x, mu)
        var = mean(ops.op("Mul", c, c))
    if wrong.unbiased:  # times n / (n - 1), n = size of x / size of mu
        n = ops.op("Div", *(ops.cast(ops.op("Size", v), "int64", compute) for v in (x, mu)))
        one = ops.op("Div", n, n)
        var = ops.op("Div", ops.op("Mul", var, n), ops.op("Sub", n, one))
    eps = ops.eps_constant(compute)
    factor = ops.cast(ops.op("Constant", value_float=float(wrong.eps)), "float32", compute)
    eps = ops.op("Mul", eps, factor)
    steps = ("Sqrt", "Add") if wrong.eps_outside else ("Add", "Sqrt")
    std = var
    for step in steps:
        std = ops.op(step, *((std, eps) if step == "Add" else (std,)))
    y = ops.op("Div", d, std)
    if wrong.weight != "none":
        y = ops.op("Mul", y, column(wrong.weight))
    if wrong.bias != "none":
        y = ops.op("Add", y, column(wrong.bias))
    ops.cast(y, compute, ops.dtype, output=ops.y)


def is_mutant(wrong: Wrong, to: str) -> bool:
    """Whether the change makes a difference for this target at all."""
    if to == "population":
        return not (wrong.unbiased or wrong.over or wrong.one_pass or wrong.running)
    return wrong.over != {"instance": "sample", "batch-stat": "batch"}[to]


# What a whole network can show with ordinary inputs: not a variance or an eps that is off by a little.
GROSS = ["weight dropped", "bias dropped", "weight and bias swapped", "unbiased variance", "running statistics",
         "batch axis added", "batch axis lost", "statistics over the channels too", "mean not subtracted"]  # fmt: skip
