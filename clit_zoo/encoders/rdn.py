"""RDN as a feature extractor.

Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018. The defaults are its larger
configuration (D = 16 blocks of C = 8 layers with growth G = 64, G0 = 64); the upsampler is left out.
"""

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Appends relu(conv(x)), `growth` channels wide, to the channels of x."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(in_channels, growth, 3, padding=1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv(x)), 1)


class ResidualDenseBlock(nn.Module):
    """Dense layers, a 1×1 convolution that fuses them (local feature fusion), and a skip around both."""

    def __init__(self, channels: int, layers: int, growth: int):
        super().__init__()
        self.convs = nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(layers)))
        self.LFF = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.LFF(self.convs(x)).add_(x)


class RDN(nn.Module):
    """RDN body: two shallow convolutions, residual dense blocks, global feature fusion, global skip.

    Args:
        channels: width between the blocks, and of the output (G0 in the paper).
        blocks: number of residual dense blocks (D).
        layers: convolutions in each block (C).
        growth: channels that each of those adds (G).
    """

    def __init__(self, channels: int = 64, blocks: int = 16, layers: int = 8, growth: int = 64):
        super().__init__()
        self.out_channels, self.reach, self.grid = channels, blocks * layers + 3, 1
        self.SFENet1 = nn.Conv2d(3, channels, 3, padding=1)
        self.SFENet2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.RDBs = nn.ModuleList(ResidualDenseBlock(channels, layers, growth) for _ in range(blocks))
        self.GFF = nn.Sequential(
            nn.Conv2d(blocks * channels, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) in [-1, 1] -> features (B, channels, h, w); any h, w >= 1."""
        shallow = self.SFENet1(image)
        x = self.SFENet2(shallow)
        stages = []
        for block in self.RDBs:
            x = block(x)
            stages.append(x)
        return self.GFF(torch.cat(stages, 1)).add_(shallow)
