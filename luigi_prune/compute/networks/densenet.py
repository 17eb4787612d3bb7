"""DenseNet-BC for small images (Huang, Liu, van der Maaten and Weinberger, arXiv 1608.06993)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luigi_prune.compute.networks.initial_weights import initialise_convolutions
from luigi_prune.compute.networks.sizes import image_shape


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, a 1x1 convolution to 4 `growth`, BatchNorm, ReLU and a 3x3 convolution to `growth` channels."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input's channels, then `growth` new ones."""
        new = self.conv2(self.relu2(self.bn2(self.conv1(self.relu1(self.bn1(x))))))
        return torch.cat((x, new), dim=1)


class DenseNetCifar(nn.Sequential):
    """A 3x3 stem, three blocks of dense layers with a transition between them, BatchNorm, ReLU, mean, linear layer.

    A transition halves the channels by a 1x1 convolution, and the edges of the images by means over 2x2 pixels.
    """

    def __init__(self, layers: int, growth: int, channels: int, output_size: int):
        super().__init__()
        width = 2 * growth
        self.add_module("conv1", nn.Conv2d(channels, width, 3, padding=1, bias=False))
        for block in (1, 2, 3):
            self.add_module(f"block{block}", _block(width, growth, layers))
            width += layers * growth
            self.add_module(f"bn{block}", nn.BatchNorm2d(width))
            self.add_module(f"relu{block}", nn.ReLU())
            if block < 3:
                self.add_module(f"transition{block}", nn.Conv2d(width, width // 2, 1, bias=False))
                self.add_module(f"pool{block}", nn.AvgPool2d(2))
                width //= 2
        self.fc = nn.Linear(width, output_size)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (batch, output_size), for images (batch, channels, height, width)."""
        for name, module in self.named_children():
            x = module(x.mean(dim=(2, 3)) if name == "fc" else x)
        return x


def _block(width: int, growth: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(width + growth * layer, growth) for layer in range(layers)))


def densenet_bc(input_shape: tuple[int, ...], output_size: int, *, name: str, layers: int, growth: int) -> nn.Module:
    """Return the network of 6 `layers` + 4 layers (densenet22: 71,686 parameters on 3x32x32 with 10 classes)."""
    channels, _, _ = image_shape(name, input_shape)
    return DenseNetCifar(layers, growth, channels, output_size)
