"""Residual networks for small images (He, Zhang, Ren and Sun, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from luigi_prune.compute.networks.initial_weights import initialise_convolutions
from luigi_prune.compute.networks.sizes import image_shape


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to their input."""

    expansion = 1

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_channels, height / stride, width / stride)."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


class BottleneckBlock(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with batch normalisation, added to their input; four times `width` channels."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu3 = nn.ReLU()
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 4 width, height / stride, width / stride)."""
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.relu2(self.bn2(self.conv2(residual)))
        return self.relu3(self.bn3(self.conv3(residual)) + self.shortcut(x))


class ResNetCifar(nn.Module):
    """A 3x3 stem, three stages of blocks of width 16, 32 and 64, global average pooling and a linear layer.

    A stage has `blocks` blocks. Shortcuts that change the shape are 1x1 convolutions with batch normalisation (option B
    of the paper), which gives resnet20 the 272,474 parameters of the pruning papers. The CIFAR networks of He et al.
    use option A (padding with zeros): 269,722.
    """

    def __init__(self, block: type[ResidualBlock | BottleneckBlock], blocks: int, channels: int, output_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.stage1 = _stage(block, 16, 16, blocks, stride=1)
        self.stage2 = _stage(block, 16 * block.expansion, 32, blocks, stride=2)
        self.stage3 = _stage(block, 32 * block.expansion, 64, blocks, stride=2)
        self.fc = nn.Linear(64 * block.expansion, output_size)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (batch, output_size), for images (batch, channels, height, width)."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        # A mean instead of AdaptiveAvgPool2d: the same value, with a deterministic gradient on a GPU.
        return self.fc(x.mean(dim=(2, 3)))


def _stage(
    block: type[ResidualBlock | BottleneckBlock], in_channels: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    """Return `blocks` residual blocks; the first one changes the shape."""
    first, inner = block(in_channels, width, stride), block.expansion * width
    return nn.Sequential(first, *(block(inner, width, 1) for _ in range(blocks - 1)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return the identity, or a 1x1 convolution with batch normalisation if the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def resnet_cifar(input_shape: tuple[int, ...], output_size: int, *, name: str, blocks: int, kind: str) -> nn.Module:
    """Return the network of any depth: three stages of `blocks` blocks, which are "basic" or "bottleneck" ones."""
    return (_basic if kind == "basic" else _bottleneck)(name, blocks, input_shape, output_size)


def _basic(name: str, blocks: int, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    channels, _, _ = image_shape(name, input_shape)
    return ResNetCifar(ResidualBlock, blocks, channels, output_size)


def _bottleneck(name: str, blocks: int, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    channels, _, _ = image_shape(name, input_shape)
    return ResNetCifar(BottleneckBlock, blocks, channels, output_size)


def resnet8(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 8-layer network: one block per stage."""
    return _basic("resnet8", 1, input_shape, output_size)


def resnet20(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 20-layer network (272,474 parameters on 3x32x32 with 10 classes)."""
    return _basic("resnet20", 3, input_shape, output_size)


def resnet32(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 32-layer network."""
    return _basic("resnet32", 5, input_shape, output_size)


def resnet44(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return torchprune's resnet44: 7 bottleneck blocks per stage, 65 layers (684,058 parameters)."""
    return _bottleneck("resnet44", 7, input_shape, output_size)


def resnet56(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return torchprune's resnet56: 9 bottleneck blocks per stage, 83 layers (869,530 parameters)."""
    return _bottleneck("resnet56", 9, input_shape, output_size)


def resnet110(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return torchprune's resnet110: 18 bottleneck blocks per stage, 164 layers (1,704,154 parameters)."""
    return _bottleneck("resnet110", 18, input_shape, output_size)


def resnet44_basic(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 44-layer network of He et al. (661,338 parameters on 3x32x32 with 10 classes)."""
    return _basic("resnet44_basic", 7, input_shape, output_size)


def resnet56_basic(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 56-layer network of He et al. (855,770 parameters on 3x32x32 with 10 classes)."""
    return _basic("resnet56_basic", 9, input_shape, output_size)


def resnet110_basic(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the 110-layer network of He et al. (1,730,714 parameters on 3x32x32 with 10 classes)."""
    return _basic("resnet110_basic", 18, input_shape, output_size)
