"""Compare the kernels of converted nn.Modules with those of torch, as ratios to eval-mode batch_norm on the same input.

One process. In each round every kernel runs in turn, with eval-mode batch_norm before each of them, and the ratio is
that of the pair. The output is the median of the rounds with the least and the most in brackets. "native" is torch's
function of the same meaning: F.instance_norm, and train-mode F.batch_norm.

    python benchmarks/torch_norms.py [--pairs 15] [--threads 2] [--dtype float32]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor

from normswap.norms import NORMS

SHAPES = [(1, 64, 128, 128), (8, 64, 64, 64), (8, 256, 16, 16), (16, 1280, 7, 7), (8, 512, 2, 2), (1, 512, 2, 2)]
DOCUMENTED = SHAPES[:3]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EPS = 1e-5

KERNELS = {target: NORMS[target].torch_kernel() for target in ("instance", "batch-stat")}
Norm = Callable[[Tensor, Tensor, Tensor], Tensor]
TARGETS: dict[str, tuple[Norm, Norm]] = {  # target -> (normswap's, torch's)
    "instance": (
        lambda x, weight, bias: KERNELS["instance"](x, weight, bias, None, None, EPS),
        lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias, eps=EPS),
    ),
    "batch-stat": (
        lambda x, weight, bias: KERNELS["batch-stat"](x, weight, bias, None, None, EPS),
        lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, True, 0.0, EPS),
    ),
}


@dataclass(frozen=True)
class Ratio:
    """Times of one kernel over those of eval-mode batch_norm, one pair per round."""

    pairs: list[float]

    def __str__(self) -> str:
        return f"{statistics.median(self.pairs):.2f} ({min(self.pairs):.2f}-{max(self.pairs):.2f})"

    @property
    def short(self) -> str:
        """The median, as docs/explanation/performance.md has it."""
        return f"{statistics.median(self.pairs):.1f}"


@dataclass(frozen=True)
class Setting:
    """What the kernels are given.

    Attributes:
        shape: (N, C, H, W).
        layout: A key of FORMATS.
        backward: Whether a backward pass follows, x and the parameters requiring gradients.
        dtype: Of x and the parameters.
    """

    shape: tuple[int, ...]
    layout: str
    backward: bool
    dtype: torch.dtype

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Make x, weight and bias."""
        torch.manual_seed(0)
        x = torch.randn(self.shape, dtype=self.dtype).contiguous(memory_format=FORMATS[self.layout])
        weight, bias = torch.rand(self.shape[1]) + 0.5, torch.randn(self.shape[1])
        x, weight, bias = x, weight.to(self.dtype), bias.to(self.dtype)
        return x.requires_grad_(self.backward), weight.requires_grad_(self.backward), bias.requires_grad_(self.backward)


def check(setting: Setting) -> None:
    """Stop if an output differs from that of torch's own kernel, or lost the memory format of x."""
    x, weight, bias = setting.tensors()
    exact = torch.finfo(setting.dtype).eps < 1e-5
    for target, (ours, native) in TARGETS.items():
        if setting.shape[0] * setting.shape[2] * setting.shape[3] == 1:
            continue  # torch refuses
        y = ours(x, weight, bias)
        torch.testing.assert_close(y.float(), native(x, weight, bias).float(), rtol=0, atol=1e-4 if exact else 0.1)
        if y.stride() != x.stride():
            raise SystemExit(f"{target} on {setting}: strides {x.stride()} became {y.stride()}")


def measure(setting: Setting, pairs: int) -> tuple[float, dict[tuple[str, str], Ratio]]:
    """Return the seconds of eval-mode batch_norm, and the ratios by target and by whose kernel it is."""
    x, weight, bias = setting.tensors()
    outer = torch.randn_like(x)
    mean, var = torch.randn(setting.shape[1]).to(x.dtype), torch.rand(setting.shape[1]).to(x.dtype) + 0.5

    def seconds(norm: Norm, calls: int) -> float:
        with torch.set_grad_enabled(setting.backward):
            start = time.perf_counter()
            for _ in range(calls):
                y = norm(x, weight, bias)
                if setting.backward:
                    torch.autograd.grad(y, (x, weight, bias), outer)
            return (time.perf_counter() - start) / calls

    def frozen(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, EPS)

    calls = max(1, round(0.005 / min(seconds(frozen, 3) for _ in range(3))))
    base: list[float] = []
    ratios: dict[tuple[str, str], list[float]] = {}
    for number in range(pairs + 1):
        for target, norms in TARGETS.items():
            for whose, norm in zip(("normswap", "native"), norms, strict=True):
                before = seconds(frozen, calls)
                ratio = seconds(norm, calls) / before
                if number:  # the first round warms up
                    base.append(before)
                    ratios.setdefault((target, whose), []).append(ratio)
    return statistics.median(base), {key: Ratio(values) for key, values in ratios.items()}


def use_up_to(mebibytes: int) -> None:
    """Allocate and free a block, as any larger network does.

    The C library gives a freed block back to the system, unless one as large was freed before; a fresh block then
    costs a page fault for every 4 KiB, several times what normalizing them does, for every kernel alike.
    """
    for _ in range(3):
        torch.ones(mebibytes * 2**18)


@click.command(help=__doc__.partition("\n")[0])
@click.option("--pairs", default=15, show_default=True, help="Rounds that count.")
@click.option("--threads", default=2, show_default=True, help="Threads of torch.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"]))
def main(pairs: int, threads: int, dtype: str) -> None:
    """Check and measure every setting, then print what docs/explanation/performance.md shows."""
    torch.set_num_threads(threads)
    use_up_to(31)  # larger blocks are always given back
    print(f"torch {torch.__version__}, {threads} threads, {dtype}, {pairs} pairs")
    medians: dict[tuple[str, str, str, bool], list[str]] = {}
    for backward in (False, True):
        for layout in FORMATS:
            for shape in SHAPES:
                setting = Setting(shape, layout, backward, getattr(torch, dtype))
                check(setting)
                base, ratios = measure(setting, pairs)
                sizes = "x".join(map(str, shape))
                print(
                    f"{sizes:<13} {layout:<13} {'forward+backward' if backward else 'forward':<16} {base * 1e6:8.0f} us"
                )
                for (target, whose), ratio in ratios.items():
                    picked = KERNELS[target].pick(setting.tensors()[0], gradients=backward)
                    print(f"    {target:<10} {whose:<8} {ratio}  {picked if whose == 'normswap' else ''}")
                    if shape in DOCUMENTED:
                        medians.setdefault((target, whose, layout, backward), []).append(ratio.short)
    shapes = ", ".join("x".join(map(str, shape)) for shape in DOCUMENTED)
    print(f"\n| {shapes} | contiguous | channels_last | contiguous, with backward | channels_last, with backward |")
    print("|---|---|---|---|---|")
    for target, native in (("instance", "F.instance_norm"), ("batch-stat", "train-mode F.batch_norm")):
        for whose, name in (("normswap", f"`{target}`"), ("native", native)):
            cells = [" · ".join(medians[target, whose, layout, back]) for back in (False, True) for layout in FORMATS]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
