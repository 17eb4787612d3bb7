"""A network of two small convolutions and one that covers the whole map."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape


def cnn60k(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return 32 and 32 5x5 filters, maxima over 2x2 pixels, 512 units and the outputs.

    The 512 units are a convolution whose kernel covers the whole map, 12x12 for 32x32 pixels; 2,393,002 parameters on
    3x32x32 with 10 classes. Needs 10x10 pixels.
    """
    channels, height, width = image_shape("cnn60k", input_shape)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 5),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 32, 5),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 512, ((height - 8) // 2, (width - 8) // 2)),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc=nn.Linear(512, output_size),
        )
    )
