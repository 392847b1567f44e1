"""Wrong normalizations, written for every backend: what a verifier has to reject, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from normswap import Norm
from normswap.layer import NormLayer
from normswap.norms.base import Form, by_name
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps
from normswap.norms.torch.export import Operands

__all__ = ["GROSS", "MUTANTS", "Mutant", "Wrong", "is_mutant"]


@dataclass(frozen=True)
class Wrong:
    """What a hand-written normalization does; with no argument it is right."""

    eps: float = 1.0  # factor
    weight: str = "scale"
    bias: str = "bias"
    unbiased: bool = False
    over: str = ""  # "batch" or "channel": pools over them, "sample" or "each channel": does not
    one_pass: bool = False  # E[x^2] - E[x]^2
    eps_outside: bool = False  # added to the standard deviation
    running: bool = False
    no_mean: bool = False
    # Of a blend:
    prior: float = 1.0  # factor
    samples: str = ""  # what counts as the input's samples: "1", "N", "n + 1" or "elements"
    blends: str = "both"  # or the "mean" alone, or the "variance"
    total_variance: bool = False  # the distance of the two means added to the variance


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
    "statistics of each channel alone": Wrong(over="each channel"),
    "variance by E[x^2] - E[x]^2": Wrong(one_pass=True),
    "running statistics": Wrong(running=True),
    "mean not subtracted": Wrong(no_mean=True),
    "own statistics alone": Wrong(prior=0.0),
    "a prior of 17 for 16": Wrong(prior=17 / 16),
    "a sample too many": Wrong(samples="n + 1"),
    "one sample, whatever the batch": Wrong(samples="1"),
    "the samples of the batch beside each sample's statistics": Wrong(samples="N"),
    "elements counted for samples": Wrong(samples="elements"),
    "mean not blended": Wrong(blends="variance"),
    "variance not blended": Wrong(blends="mean"),
    "variance by the law of total variance": Wrong(total_variance=True),
}


class Mutant(Norm):
    """A norm whose meaning is right and whose operators are wrong."""

    def __init__(self, right: Norm, wrong: Wrong) -> None:
        self.name, self.meaning, self.equals = right.name, right.meaning, right.equals
        self.takes, self.formula = right.takes, right.formula
        vars(self).update(right.parameters)
        reads = wrong.running or {wrong.weight, wrong.bias} & {"mean", "var"}
        if reads and not right.formula.reads_stored:  # so that running statistics are there to be read
            self.formula = replace(right.formula, weights=lambda n: (1.0, 0.0))
        self.right, self.wrong = right, wrong
        self.forms = by_name(Form("mutant", lambda ops: emit(ops, wrong, right)))

    def refuse(self, layer: NormLayer) -> str | None:
        return self.right.refuse(layer)

    def torch_kernel(self) -> Any:
        return WrongKernel(self.wrong, self.right.formula, self.parameters.get("prior", 0.0))


@dataclass(frozen=True)
class WrongKernel:
    """Normalizes by ATen operators, as ``wrong`` says: on tensors, and on the proxies of a graph."""

    wrong: Wrong
    formula: Formula
    prior: float

    @property
    def forms(self) -> Mapping[str, Any]:
        return {"by hand": self}

    def __call__(self, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> Any:
        return self.export(Operands(x, weight, bias, mean, var, eps, x.dim(), x.dtype, x.dtype))

    def export(self, given: Operands) -> Any:
        x, weight, bias, mean, var, eps, rank, dtype, _ = given
        wrong, aten = self.wrong, torch.ops.aten
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        batch = (not self.formula.alone or wrong.over in ("batch", "channel")) and wrong.over != "sample"
        axes = [*([0] if batch else []), *([1] if over_channels(wrong, self.formula) else []), *range(2, rank)]

        def column(parameter: Any) -> Any:
            wide = aten._to_copy.default(parameter, dtype=compute)
            return aten.view.default(wide, [1, -1] + [1] * (rank - 2))

        def average(value: Any) -> Any:
            return aten.mean.dim(value, axes, True) if axes else value

        parameters = {"scale": weight, "bias": bias, "mean": mean, "var": var}
        x = aten._to_copy.default(x, dtype=compute)
        mu = column(mean) if wrong.running or not self.formula.over else average(x)
        if wrong.running or not self.formula.over:
            v = column(var)
        elif wrong.one_pass:
            v = aten.sub.Tensor(average(aten.mul.Tensor(x, x)), aten.mul.Tensor(mu, mu))
        else:
            c = aten.sub.Tensor(x, mu)
            v = average(aten.mul.Tensor(c, c))

        def elements() -> Any:
            ones = aten.ones_like.default(x)
            return aten.sum.dim_IntList(ones, axes, True) if axes else ones

        def batch_size() -> Any:
            ones = aten.ones_like.default(aten.mean.dim(x, list(range(1, rank)), True))
            return aten.sum.dim_IntList(ones, [0], True)

        if wrong.unbiased:  # times n / (n - 1), n = sum of ones
            n = elements()
            v = aten.div.Tensor(aten.mul.Tensor(v, n), aten.sub.Tensor(n, 1))
        if self.formula.weights is not None and not wrong.running:
            counted = samples_of(wrong, self.formula.alone, batch_size, elements)
            stored = self.prior * wrong.prior

            def mixed(own: Any, kept: Any) -> Any:
                summed = aten.add.Tensor(aten.mul.Tensor(own, counted), aten.mul.Tensor(kept, stored))
                return aten.div.Tensor(summed, aten.add.Tensor(counted, stored))

            if wrong.total_variance:
                apart = aten.sub.Tensor(mu, column(mean))  # of which the blend below takes its share
                between = aten.mul.Tensor(aten.mul.Tensor(apart, apart), stored)
                v = aten.add.Tensor(v, aten.div.Tensor(between, aten.add.Tensor(counted, stored)))
            if wrong.blends != "mean":
                v = mixed(v, column(var))
            if wrong.blends != "variance":
                mu = mixed(mu, column(mean))
        d = x if wrong.no_mean else aten.sub.Tensor(x, mu)
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


def samples_of(wrong: Wrong, by_sample: bool, batch_size: Callable[[], Any], elements: Callable[[], Any]) -> Any:
    """Count the samples, as ``wrong`` says, on tensors and proxies; nothing is computed that is not counted."""
    aten = torch.ops.aten

    def one() -> Any:
        return aten.ones_like.default(batch_size())

    right = one if by_sample else batch_size
    said = {
        "": right,
        "1": one,
        "N": batch_size,
        "n + 1": lambda: aten.add.Tensor(right(), 1),
        "elements": elements,
    }
    return said[wrong.samples]()


def over_channels(wrong: Wrong, formula: Formula) -> bool:
    """Whether statistics are over all channels; mutants of several groups are in tests/norms/test_group.py."""
    assert formula.groups_of(6) in (1, 6)
    return wrong.over == "channel" or (formula.joins_channels and wrong.over != "each channel")


def emit(ops: OnnxOps, wrong: Wrong, right: Norm) -> None:
    """Normalize by primitives, as ``wrong`` says."""
    formula, prior = right.formula, right.parameters.get("prior", 0.0)
    compute = "float64" if ops.dtype == "float64" else "float32"
    rank = ops.rank or 4
    spatial = list(range(2, rank))
    batch = (not formula.alone or wrong.over in ("batch", "channel")) and wrong.over != "sample"
    axes = [*([0] if batch else []), *([1] if over_channels(wrong, formula) else []), *spatial]

    def column(parameter: str) -> str:
        value = ops.cast(getattr(ops, parameter), ops.param_dtype, compute)
        return ops.op("Reshape", value, ops.ints([1, -1] + [1] * (rank - 2)))

    def mean(value: str) -> str:
        return ops.reduce_mean(value, axes) if axes else value

    x = ops.cast(ops.x, ops.dtype, compute)
    mu = column("mean") if wrong.running or not formula.over else mean(x)
    if wrong.running or not formula.over:
        var = column("var")
    elif wrong.one_pass:
        var = ops.op("Sub", mean(ops.op("Mul", x, x)), ops.op("Mul", mu, mu))
    else:
        c = ops.op("Sub", x, mu)
        var = mean(ops.op("Mul", c, c))
    own_mean = mu

    def elements() -> str:
        return ops.op("Div", *(ops.cast(ops.op("Size", v), "int64", compute) for v in (x, own_mean)))

    def one() -> str:
        return ops.number(1, compute)

    def batch_size() -> str:
        return ops.cast(ops.op("Gather", ops.op("Shape", x), ops.ints([0])), "int64", compute)

    if wrong.unbiased:  # times n / (n - 1), n = size of x / size of mu
        n = elements()
        var = ops.op("Div", ops.op("Mul", var, n), ops.op("Sub", n, one()))
    if formula.weights is not None and not wrong.running:
        counted = one if formula.alone else batch_size
        samples = {  # made when asked for, since what nothing reads would stand outside of the layer
            "": counted,
            "1": one,
            "N": batch_size,
            "n + 1": lambda: ops.op("Add", counted(), one()),
            "elements": elements,
        }[wrong.samples]()
        stored = ops.number(prior * wrong.prior, compute)
        total = ops.op("Add", samples, stored)

        def mixed(own: str, kept: str) -> str:
            summed = ops.op("Add", ops.op("Mul", own, samples), ops.op("Mul", kept, stored))
            return ops.op("Div", summed, total)

        if wrong.total_variance:  # of which the blend takes its share
            apart = ops.op("Sub", mu, column("mean"))
            between = ops.op("Div", ops.op("Mul", ops.op("Mul", apart, apart), stored), total)
            var = ops.op("Add", var, between)
        if wrong.blends != "mean":
            var = mixed(var, column("var"))
        if wrong.blends != "variance":
            mu = mixed(mu, column("mean"))
    d = x if wrong.no_mean else ops.op("Sub", x, mu)
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


def is_mutant(wrong: Wrong, norm: Norm) -> bool:
    """Whether the change makes a difference for this target at all."""
    if not norm.formula.over and (wrong.unbiased or wrong.over or wrong.one_pass or wrong.running):
        return False
    of_blend = wrong.prior != 1 or wrong.samples or wrong.blends != "both" or wrong.total_variance
    if of_blend and norm.formula.weights is None:
        return False
    if wrong.over == ("channel" if norm.formula.joins_channels else "each channel"):
        return False
    alone = norm.formula.alone
    return wrong.over != ("sample" if alone else "batch") and wrong.samples != ("1" if alone else "N")


# What a whole network can show with ordinary inputs: not a variance or an eps that is off by a little.
GROSS = ["weight dropped", "bias dropped", "weight and bias swapped", "unbiased variance", "running statistics",
         "batch axis added", "batch axis lost", "statistics over the channels too", "statistics of each channel alone",
         "mean not subtracted",
         "own statistics alone", "a prior of 17 for 16", "a sample too many", "one sample, whatever the batch",
         "the samples of the batch beside each sample's statistics", "elements counted for samples",
         "mean not blended", "variance not blended", "variance by the law of total variance"]  # fmt: skip
