"""The networks of LeCun, Bottou, Bengio and Haffner (1998), in the variants of the pruning literature."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape


def lenet300_100(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the fully connected network with 300 and 100 hidden units (266,610 parameters on 28x28, 10 classes)."""
    return _fully_connected(input_shape, output_size, (300, 100))


def lenet500_300_100(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return the same with 500, 300 and 100 hidden units (573,910 parameters on 28x28, 10 classes)."""
    return _fully_connected(input_shape, output_size, (500, 300, 100))


def fcnet_nettrim(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return that of Net-Trim (arXiv 1611.05162): 300, 1000 and 100 hidden units (637,610 parameters)."""
    return _fully_connected(input_shape, output_size, (300, 1000, 100))


def lenet5(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return torchprune's LeNet-5: 6 and 16 3x3 filters, each max-pooled, then 120, 84 and the outputs.

    The 120 units are a convolution whose kernel covers the whole map, 6x6 for 32x32 pixels, in place of a linear layer:
    one of its input channels is a whole feature map. 81,194 parameters on 1x32x32 with 10 classes. torchprune's kernel
    is always 6x6, so that 28x28 pixels fail there; here it is 5x5 then (60,074 parameters). Needs 10x10 pixels.
    """
    channels, height, width = image_shape("lenet5", input_shape)
    covering = (_after_convolutions(height, kernel=3), _after_convolutions(width, kernel=3))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, kernel_size=3),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, kernel_size=3),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(16, 120, kernel_size=covering),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc2=nn.Linear(84, output_size),
        )
    )


def lenet5_caffe(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return Caffe's LeNet-5: 20 and 50 5x5 filters, each max-pooled, then 500 units (431,080 parameters on MNIST).

    Pruning papers use this variant (Han et al., arXiv 1506.02626, table 3), not the 6-16-120-84 of 1998. Unlike Caffe's
    it has a ReLU after each convolution, too, not only after the fully connected layer. Needs 16x16 pixels.
    """
    channels, height, width = image_shape("lenet5_caffe", input_shape)
    features = 50 * _after_convolutions(height, kernel=5) * _after_convolutions(width, kernel=5)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 20, kernel_size=5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, kernel_size=5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(features, 500),
            relu3=nn.ReLU(),
            fc2=nn.Linear(500, output_size),
        )
    )


def _fully_connected(input_shape: tuple[int, ...], output_size: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return linear layers of `hidden` units, each with a ReLU, and one of the outputs."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    before = prod(input_shape)
    for position, units in enumerate(hidden, start=1):
        layers[f"fc{position}"] = nn.Linear(before, units)
        layers[f"relu{position}"] = nn.ReLU()
        before = units
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(before, output_size)
    return nn.Sequential(layers)


def _after_convolutions(pixels: int, kernel: int) -> int:
    """Return the edge length after two convolutions without padding, each with 2x2 pooling, of an image of `pixels`."""
    for _ in range(2):
        pixels = (pixels - kernel + 1) // 2
    return pixels
