"""Residual networks for small images (He, Zhang, Ren and Sun, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from luigi_prune.compute.networks.sizes import image_shape
from luigi_prune.errors import ConfigError


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to their input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_channels, height / stride, width / stride)."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


class ResNetCifar(nn.Module):
    """A 3x3 stem, three stages of 16, 32 and 64 channels, global average pooling and a linear layer.

    Shortcuts that change the shape are 1x1 convolutions with batch normalisation (option B of the paper), which gives
    resnet20 the 272,474 parameters of the pruning papers. The CIFAR networks of He et al. use option A (padding with
    zeros): 269,722.
    """

    def __init__(self, depth: int, channels: int, output_size: int):
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ConfigError(f"network.name: expected a depth of 6 n + 2 for a CIFAR resnet, got {depth}")
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.stage1 = _stage(16, 16, blocks, stride=1)
        self.stage2 = _stage(16, 32, blocks, stride=2)
        self.stage3 = _stage(32, 64, blocks, stride=2)
        self.fc = nn.Linear(64, output_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (batch, output_size), for images (batch, channels, height, width)."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        # A mean instead of AdaptiveAvgPool2d: the same value, with a deterministic gradient on a GPU.
        return self.fc(x.mean(dim=(2, 3)))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Return `blocks` residual blocks; the first one changes the shape."""
    first = ResidualBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _resnet(depth: int, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    # Below 5x5 the last stage's input is one pixel, and BatchNorm cannot normalise a batch of one sample.
    channels, _, _ = image_shape(f"resnet{depth}", input_shape, minimum=5)
    return ResNetCifar(depth, channels, output_size)


def resnet8(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 8-layer network: one block per stage."""
    return _resnet(8, input_shape, output_size)


def resnet20(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 20-layer network (272,474 parameters on 3x32x32 with 10 classes)."""
    return _resnet(20, input_shape, output_size)


def resnet32(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 32-layer network."""
    return _resnet(32, input_shape, output_size)


def resnet44(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 44-layer network."""
    return _resnet(44, input_shape, output_size)


def resnet56(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 56-layer network (855,770 parameters on 3x32x32 with 10 classes)."""
    return _resnet(56, input_shape, output_size)


def resnet110(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 110-layer network (1,730,714 parameters on 3x32x32 with 10 classes)."""
    return _resnet(110, input_shape, output_size)
