"""AlexNet (Krizhevsky, Sutskever and Hinton 2012) for small images, and with BatchNorm for large ones."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape

# filters, kernel size, padding, and whether maxima follow
_LAYERS = ((192, 5, 2, True), (384, 3, 1, False), (256, 3, 1, False), (256, 3, 1, True))


def alexnet_cifar(channels: int, height: int, width: int, output_size: int) -> nn.Module:
    """Return five convolutions and one linear layer (2,472,266 parameters on 3x32x32 with 10 classes)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 64, 11, stride=4, padding=5), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2)
    )
    before = 64
    for position, (filters, kernel, padding, pooled) in enumerate(_LAYERS, start=2):
        layers[f"conv{position}"] = nn.Conv2d(before, filters, kernel, padding=padding)
        layers[f"relu{position}"] = nn.ReLU()
        if pooled:
            layers[f"pool{position}"] = nn.MaxPool2d(2)
        before = filters
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(before * _pooled(height) * _pooled(width), output_size)
    return nn.Sequential(layers)


def _pooled(pixels: int) -> int:
    """Return the edge length after the first convolution and the three maxima over 2x2 pixels."""
    return ((pixels - 1) // 4 + 1) // 8


def alexnet_bn(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return AlexNet with BatchNorm behind every convolution and hidden layer, as torchprune has it.

    The hidden layers are convolutions without biases, 6x6 and 1x1: one input channel of the first is a whole feature
    map. 61,110,184 parameters with 1000 classes.
    """
    channels, _, _ = image_shape("alexnet_bn", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def convolution(label: str, before: int, filters: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        layers[f"conv{label}"] = nn.Conv2d(before, filters, kernel, stride, padding, bias=False)
        layers[f"bn{label}"] = nn.BatchNorm2d(filters)
        layers[f"relu{label}"] = nn.ReLU()

    convolution("1", channels, 64, 11, stride=4, padding=2)
    layers["pool1"] = nn.MaxPool2d(3, stride=2)
    before = 64
    for position, (filters, kernel, padding, pooled) in enumerate(_LAYERS, start=2):
        convolution(str(position), before, filters, kernel, padding=padding)
        if pooled:
            layers[f"pool{position}"] = nn.MaxPool2d(3, stride=2)
        before = filters
    layers["average"] = nn.AdaptiveAvgPool2d(6)
    layers["dropout1"] = nn.Dropout()
    convolution("6", before, 4096, 6)
    layers["dropout2"] = nn.Dropout()
    convolution("7", 4096, 4096, 1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(4096, output_size)
    return nn.Sequential(layers)
