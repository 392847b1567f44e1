"""The network of this example: a small generator with BatchNorm, as a team would train it."""

from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolve, normalize, activate."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Generator(nn.Module):
    """Turn images, shape (N, 3, H, W) in 0..1 with H and W multiples of 4, into others."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.down = nn.Sequential(block(3, 12, 2), block(12, 16, 2))
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), block(16, 12), nn.Upsample(scale_factor=2))
        self.head = nn.Sequential(nn.Conv2d(12, 3, 3, 1, 1), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        """Return the images made."""
        made: Tensor = self.head(self.up(self.down(image)))
        return made
