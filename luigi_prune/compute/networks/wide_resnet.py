"""Wide residual networks for small images (Zagoruyko and Komodakis, arXiv 1605.07146)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luigi_prune.compute.networks.initial_weights import initialise_convolutions
from luigi_prune.compute.networks.sizes import image_shape


class PreactivatedBlock(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, added to the input.

    If the widths differ, the shortcut is a 1x1 convolution without BatchNorm of the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_channels, height / stride, width / stride)."""
        activated = self.relu1(self.bn1(x))
        residual = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """A 3x3 stem of 16 filters, three stages of pre-activated blocks, BatchNorm, ReLU, mean and a linear layer."""

    def __init__(self, blocks: int, width: int, channels: int, output_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.stage1, self.stage2, self.stage3 = (
            nn.Sequential(
                PreactivatedBlock(before, after, stride),
                *(PreactivatedBlock(after, after, 1) for _ in range(blocks - 1)),
            )
            for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        )
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.relu1 = nn.ReLU()
        self.fc = nn.Linear(widths[-1], output_size)
        initialise_convolutions(self)
        with torch.no_grad():
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (batch, output_size), for images (batch, channels, height, width)."""
        x = self.stage3(self.stage2(self.stage1(self.conv1(x))))
        return self.fc(self.relu1(self.bn1(x)).mean(dim=(2, 3)))


def wide_resnet(input_shape: tuple[int, ...], output_size: int, *, name: str, blocks: int, width: int) -> nn.Module:
    """Return the network of 6 `blocks` + 4 layers, `width` times as wide (wrn28_10: 36,479,194 parameters)."""
    channels, _, _ = image_shape(name, input_shape)
    return WideResNet(blocks, width, channels, output_size)
