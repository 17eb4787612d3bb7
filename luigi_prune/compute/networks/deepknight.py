"""A network that predicts the curvature of a road from a camera's picture."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape

_LAYERS = ((24, 5, 2), (36, 5, 2), (48, 3, 2), (64, 3, 1), (64, 3, 1))  # filters, kernel size, stride


def deepknight(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
    """Return five convolutions, 1000 units as a convolution over the whole map, 100 units and the outputs.

    1,740,901 parameters on 3x60x240 with one output, where the map is 1x24. Needs 53x53 pixels.
    """
    channels, height, width = image_shape("deepknight", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for position, (filters, kernel, stride) in enumerate(_LAYERS, start=1):
        layers[f"conv{position}"] = nn.Conv2d(channels, filters, kernel, stride)
        layers[f"relu{position}"] = nn.ReLU()
        channels = filters
        height, width = ((pixels - kernel) // stride + 1 for pixels in (height, width))
    layers["conv6"] = nn.Conv2d(channels, 1000, (height, width))
    layers["relu6"] = nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(1000, 100)
    layers["relu7"] = nn.ReLU()
    layers["fc2"] = nn.Linear(100, output_size)
    return nn.Sequential(layers)
