"""Plain networks of five layers, in size between LeNet-5 and VGG."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape


def cnn5(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return four 3x3 convolutions (64, 128, 256, 512), each with BatchNorm and ReLU, and a linear layer.

    It is the five-layer network of Nakkiran et al. (arXiv 1912.02292, section 5) as torchprune has it: maxima over 2x2
    pixels after the second and the third convolution and over the whole map after the fourth (8x8 for 32x32 pixels),
    then a 1x1 convolution with bias in place of the linear layer; 1,557,066 parameters on 3x32x32 with 10 classes.
    Needs 8x8 pixels.
    """
    channels, height, width = image_shape("cnn5", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for position, (filters, pooled) in enumerate(
        [(64, None), (128, 2), (256, 2), (512, (height // 4, width // 4))], start=1
    ):
        layers[f"conv{position}"] = nn.Conv2d(channels, filters, kernel_size=3, padding=1, bias=False)
        layers[f"bn{position}"] = nn.BatchNorm2d(filters)
        layers[f"relu{position}"] = nn.ReLU()
        if pooled is not None:
            layers[f"pool{position}"] = nn.MaxPool2d(pooled)
        channels = filters
    layers["fc"] = nn.Conv2d(channels, output_size, kernel_size=1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def cnn5_plain(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return five 3x3 convolutions (64, 64, pool, 128, 128, pool, 256, pool) and linear layers (256, 256, outputs).

    It is Conv-6 of Frankle and Carbin (arXiv 1803.03635, figure 2) without its sixth convolution; 1,672,522
    parameters on 3x32x32 with 10 classes. Needs 8x8 pixels.
    """
    channels, height, width = image_shape("cnn5_plain", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for position, (filters, pooled) in enumerate([(64, False), (64, True), (128, False), (128, True), (256, True)], 1):
        layers[f"conv{position}"] = nn.Conv2d(channels, filters, kernel_size=3, padding=1)
        layers[f"relu{position}"] = nn.ReLU()
        if pooled:
            layers[f"pool{position}"] = nn.MaxPool2d(2)
        channels = filters
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(256 * (height // 8) * (width // 8), 256)
    layers["relu6"] = nn.ReLU()
    layers["fc2"] = nn.Linear(256, 256)
    layers["relu7"] = nn.ReLU()
    layers["fc3"] = nn.Linear(256, output_size)
    return nn.Sequential(layers)
