"""EDSR-baseline as a feature extractor.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR workshops 2017: residual
blocks without normalisation, and a residual scale of 1 in the baseline. Its upsampler is left out, and so is
its mean shift, since CLIT normalises the input to [-1, 1] instead.
"""

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))); width and size stay."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).add_(x)  # a sum in memory of its own took a tenth of the encoder's time


class EDSR(nn.Module):
    """EDSR body: head convolution, `blocks` residual blocks, closing convolution, global skip.

    Args:
        channels: width of every convolution, and of the output.
        blocks: number of residual blocks; 16 in EDSR-baseline.
    """

    def __init__(self, channels: int = 64, blocks: int = 16):
        super().__init__()
        self.out_channels, self.reach, self.grid = channels, 2 * blocks + 2, 1
        self.head = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1))
        self.body = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(blocks)),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) in [-1, 1] -> features (B, channels, h, w); any h, w >= 1."""
        x = self.head(image)
        return self.body(x).add_(x)
