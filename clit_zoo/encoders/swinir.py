"""SwinIR as a feature extractor.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV workshops 2021, in its classical
super-resolution size, up to and including the convolution before the upsampler, if it has one. The mean shift
is left out, since CLIT normalises the input to [-1, 1] instead. The blocks are timm's.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

# Stochastic depth of the last block while training; it grows linearly from 0 at the first. SwinIR's default.
DROP_PATH = 0.1


class SwinIR(nn.Module):
    """SwinIR body: shallow convolution, residual groups of Swin blocks, closing convolutions.

    Args:
        channels: width of the transformer (the paper's embedding).
        depths: Swin blocks in each residual group; every second one shifts its windows.
        heads: attention heads in each residual group.
        window: side of the attention windows in pixels.
        mlp_ratio: hidden width of a block's MLP over `channels`.
        out_channels: width of the output; 0 leaves the last convolution out, so that it is ``channels``.
    """

    def __init__(
        self,
        channels: int = 180,
        depths: Sequence[int] = (6,) * 6,
        heads: Sequence[int] = (6,) * 6,
        window: int = 8,
        mlp_ratio: float = 2,
        out_channels: int = 64,
    ):
        super().__init__()
        self.out_channels, self.window, self.grid = out_channels or channels, window, window
        # a block's window lies up to window - 1 pixels beyond; each group, and the trunk, adds its
        # convolutions
        self.reach = sum(depths) * (window - 1) + len(depths) + (3 if out_channels else 2)
        rates = (DROP_PATH * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(channels)})
        self.layers = nn.ModuleList(
            ResidualGroup(channels, n, window, mlp_ratio, list(islice(rates, depth)))
            for n, depth in zip(heads, depths, strict=True)
        )
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_before_upsample = nn.Sequential()
        if out_channels:
            self.conv_before_upsample.append(nn.Conv2d(channels, out_channels, 3, padding=1))
            self.conv_before_upsample.append(nn.LeakyReLU(0.01, inplace=True))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) in [-1, 1] -> features (B, out_channels, h, w); any h, w >= 1.

        The image is continued by reflection to whole windows, and the features are cropped back.
        """
        height, width = image.shape[-2:]
        shallow = self.conv_first(reflect_to_multiple(image, self.window))
        masks = shift_masks(self.window, shallow)
        x = self.patch_embed["norm"](shallow.permute(0, 2, 3, 1))
        for group in self.layers:
            x = group(x, masks)
        deep = self.norm(x).permute(0, 3, 1, 2)
        features = self.conv_before_upsample(self.conv_after_body(deep) + shallow)
        return features[..., :height, :width]


class ResidualGroup(nn.Module):
    """Swin blocks, a 3×3 convolution, and a skip around both (RSTB in the paper), on (B, H, W, C)."""

    def __init__(self, channels: int, heads: int, window: int, mlp_ratio: float, drop_path: Sequence[float]):
        super().__init__()
        # timm takes seconds to import; only a SwinIR model needs it.
        from timm.models.swin_transformer import SwinTransformerBlock

        def block(index: int, rate: float) -> nn.Module:
            made: Any = SwinTransformerBlock(
                channels,
                (window, window),
                num_heads=heads,
                window_size=window,
                shift_size=window // 2 * (index % 2),
                always_partition=True,
                dynamic_mask=True,
                mlp_ratio=mlp_ratio,
                drop_path=rate,
            )
            made.attn.fused_attn = True
            return made

        blocks = [block(i, rate) for i, rate in enumerate(drop_path)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        skip = x
        block: Any
        for block in self.residual_group["blocks"].children():
            x = x + block.drop_path1(windowed_attention(block, block.norm1(x), masks))
            x = x + block.drop_path2(block.mlp(block.norm2(x)))
        return skip + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def windowed_attention(block: Any, x: Tensor, masks: Tensor) -> Tensor:
    """The (shifted-)window attention of one timm block on x (B, H, W, C); H and W are whole windows.

    The block's own forward adds a mask per window and head. Shifting joins strangers only in the last row and
    the last column of windows: the others go unmasked here, and no mask grows with the image.
    """
    window, shift = block.window_size[0], block.shift_size[0]
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
    batch, height, width, channels = x.shape
    rows, columns = height // window, width // window
    x = x.view(batch, rows, window, columns, window, channels).transpose(2, 3)
    x = x.reshape(batch, rows, columns, window * window, channels)
    if shift:
        edge = torch.cat((x[:, :-1, -1], x[:, -1]), 1)
        mask = torch.cat(
            (masks[:1].expand(rows - 1, -1, -1), masks[1:2].expand(columns - 1, -1, -1), masks[2:])
        )
        edge = block.attn(edge.flatten(0, 1), mask=mask).view_as(edge)
        right, bottom = edge[:, : rows - 1, None], edge[:, None, rows - 1 :]
        inner = x[:, :-1, :-1]
        if inner.numel():
            inner = block.attn(inner.flatten(0, 2)).view(inner.shape)
        x = torch.cat((torch.cat((inner, right), 2), bottom), 1)
    else:
        x = block.attn(x.flatten(0, 2)).view_as(x)
    x = x.view(batch, rows, columns, window, window, channels).transpose(2, 3)
    x = x.reshape(batch, height, width, channels)
    return x.roll((shift, shift), (1, 2)) if shift else x


def shift_masks(window: int, like: Tensor) -> Tensor:
    """Added to the logits of a shifted window: (3, window², window²), -100 between pixels that are strangers.

    Shifting puts the first rows of the image below its last ones, and columns likewise: strangers meet in the
    last column of windows (mask 0), in the last row (mask 1) and in the corner (mask 2).
    """
    wrapped = torch.arange(window, device=like.device) >= window - window // 2
    across = wrapped.expand(window, window)
    sides = torch.stack((across.int(), across.T.int(), across + 2 * across.T)).flatten(1)
    strangers = sides[:, :, None] != sides[:, None, :]
    return torch.zeros(strangers.shape, dtype=like.dtype, device=like.device).masked_fill(strangers, -100.0)


def reflect_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Image (B, C, h, w) continued below and to the right, to the next multiples, by mirrors at its borders.

    The border pixel repeats, and a mirror image that is too small is mirrored again, so that even one pixel
    can be continued (torch's "reflect" padding needs an image larger than the padding).
    """
    for axis in (-2, -1):
        size = image.shape[axis]
        target = -(-size // multiple) * multiple
        if target != size:
            position = torch.arange(target, device=image.device) % (2 * size)
            image = image.index_select(axis, torch.minimum(position, 2 * size - 1 - position))
    return image
