"""The networks of image-to-image GANs, with BatchNorm where their papers put it, in sizes that a test can afford.

Written from the descriptions: Isola et al. 2017 (pix2pix), section 6.1, which the networks are named after; Johnson et
al. 2016, supplementary material, and Zhu et al. 2017, section 7.2, for the ResNet generator; Yi et al. 2017 (DualGAN),
section 3.3, whose generator is pix2pix's U-Net. They train on few images at a time, and pix2pix runs with the
statistics of the image at hand, which is why eval mode ruins it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from support.models.modules import Build, seeded, shaped

__all__ = ["GAN_NETWORKS", "Network", "PatchDiscriminator", "ResNetGenerator", "UNetGenerator"]

_WIDEST = 8  # no layer has more than eight times the channels of the first


def _widths(first: int, depth: int) -> list[int]:
    """List the channels of a stack that doubles them: 64, 128, 256, 512, 512, ..."""
    return [first * min(2**index, _WIDEST) for index in range(depth)]


class UNetGenerator(nn.Module):
    """pix2pix's generator, and DualGAN's: an encoder and a decoder with skip connections (Isola et al., 6.1.1).

    In the paper's words, with width 64 and depth 8: encoder C64-C128-C256-C512-C512-C512-C512-C512, decoder
    CD512-CD1024-CD1024-C1024-C1024-C512-C256-C128, the numbers after concatenation with the encoder; Ck is a 4 x 4
    convolution of stride 2, BatchNorm and ReLU, CDk has a dropout of one half before the ReLU. The encoder's ReLUs
    leak with slope 0.2, and its first C64 has no BatchNorm.

    Args:
        width: Channels of the first layer.
        depth: Times that the resolution is halved.
        bottleneck_norm: Whether the innermost layer of the encoder has BatchNorm. The paper's list says so; its errata
            take it away, because an innermost map of one element is normalized to its bias at batch size 1.
        dropout: The probability; the paper drops at test time too.
        channels_in: Channels of the input.
        channels_out: Channels of the output.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 8,
        *,
        bottleneck_norm: bool = False,
        dropout: float = 0.5,
        channels_in: int = 3,
        channels_out: int = 3,
    ) -> None:
        super().__init__()
        widths = _widths(width, depth)
        self.encoder = nn.ModuleList([nn.Conv2d(channels_in, width, 4, 2, 1)])
        for level, (narrow, wide) in enumerate(pairwise(widths), 2):
            down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(narrow, wide, 4, 2, 1)]
            if level < depth or bottleneck_norm:
                down.append(nn.BatchNorm2d(wide))
            self.encoder.append(nn.Sequential(*down))
        self.decoder = nn.ModuleList()
        arriving = widths[-1]
        for level, leaving in enumerate(reversed(widths[:-1])):
            up = [nn.ReLU(), nn.ConvTranspose2d(arriving, leaving, 4, 2, 1), nn.BatchNorm2d(leaving)]
            self.decoder.append(nn.Sequential(*up, *([nn.Dropout(dropout)] if level < 3 else [])))
            arriving = 2 * leaving
        self.head = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(arriving, channels_out, 4, 2, 1), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        features = []
        x = image
        for down in self.encoder:
            x = down(x)
            features.append(x)
        for up, skipped in zip(self.decoder, features[-2::-1], strict=True):
            x = torch.cat([up(x), skipped], dim=1)
        y: Tensor = self.head(x)
        return y


class _Residual(nn.Module):
    """R of the ResNet generator: two 3 x 3 convolutions beside the identity, with no ReLU after the sum."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width)]
        self.branch = nn.Sequential(*first, nn.Dropout(dropout), *second)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class ResNetGenerator(nn.Module):
    """The generator of Johnson et al. 2016: halve the resolution twice, residual blocks, double it twice.

    In the words of Zhu et al., with width 64: c7s1-64, d128, d256, R256 six or nine times, u128, u64, c7s1-3. Padding
    reflects. Johnson's original has BatchNorm, as here; CycleGAN put InstanceNorm in its place.

    Args:
        width: Channels of the first layer.
        blocks: Number of residual blocks: 6 for images of 128, 9 from 256 on.
        dropout: The probability inside a block.
    """

    def __init__(self, width: int = 64, blocks: int = 9, *, dropout: float = 0.5) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.BatchNorm2d(width), nn.ReLU()]
        for narrow in (width, 2 * width):
            layers += [nn.Conv2d(narrow, 2 * narrow, 3, 2, 1), nn.BatchNorm2d(2 * narrow), nn.ReLU()]
        layers += [_Residual(4 * width, dropout) for _ in range(blocks)]
        for narrow in (2 * width, width):
            up = nn.ConvTranspose2d(2 * narrow, narrow, 3, 2, 1, output_padding=1)
            layers += [up, nn.BatchNorm2d(narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.layers(image)
        return y


class PatchDiscriminator(nn.Module):
    """PatchGAN: for each patch of an image pair, whether it is real (Isola et al., 6.1.2).

    With width 64 and depth 3 it is the paper's 70 x 70: C64-C128-C256-C512, the last with stride 1, then a
    convolution to one channel. All ReLUs leak with slope 0.2; the first C64 has no BatchNorm.

    Args:
        width: Channels of the first layer.
        depth: Number of layers of stride 2.
    """

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        widths = _widths(width, depth + 1)
        layers = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level, (narrow, wide) in enumerate(pairwise(widths), 1):
            stride = 2 if level < depth else 1
            layers += [nn.Conv2d(narrow, wide, 4, stride, 1), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1), nn.Sigmoid())

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        y: Tensor = self.layers(torch.cat([condition, image], dim=1))
        return y


@dataclass(frozen=True)
class Network:
    """A small version of a network.

    Attributes:
        build: Makes it, always the same one, in eval mode.
        inputs: Makes the arguments of its forward.
        count: Number of BatchNorms.
    """

    build: Build
    inputs: Callable[[], tuple[Tensor, ...]]
    count: int


_IMAGE = shaped((2, 3, 64, 64))

GAN_NETWORKS: dict[str, Network] = {
    "pix2pix U-Net": Network(seeded(lambda: UNetGenerator(8, 5)), _IMAGE, 7),
    "pix2pix U-Net, BatchNorm in a bottleneck of one element": Network(
        seeded(lambda: UNetGenerator(8, 6, bottleneck_norm=True)), _IMAGE, 10
    ),
    "DualGAN U-Net": Network(
        seeded(lambda: UNetGenerator(8, 5, channels_in=1, channels_out=1)), shaped((2, 1, 64, 64)), 7
    ),
    "ResNet generator, 6 blocks": Network(seeded(lambda: ResNetGenerator(8, 6)), _IMAGE, 17),
    "ResNet generator, 9 blocks": Network(seeded(lambda: ResNetGenerator(8, 9)), _IMAGE, 23),
    "PatchGAN discriminator": Network(seeded(lambda: PatchDiscriminator(8)), shaped((2, 3, 64, 64), (2, 3, 64, 64)), 3),
}
