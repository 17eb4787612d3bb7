"""VGG networks (Simonyan and Zisserman, arXiv 1409.1556) for small images, with one linear layer."""

from __future__ import annotations

from torch import nn

from luigi_prune.compute.networks.initial_weights import initialise_convolutions

# Convolutions of 64, 128, 256, 512 and 512 filters, between which maxima over 2x2 pixels are taken.
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_FILTERS = (64, 128, 256, 512, 512)


def vgg_cifar(channels: int, height: int, width: int, output_size: int, *, depth: int, batch_norm: bool) -> nn.Module:
    """Return the VGG of `depth` layers whose classifier is one linear layer; the convolutions have biases.

    With BatchNorm and 16 layers it is the VGG16 of pruning papers: 14,728,266 parameters on 3x32x32 with 10 classes.
    """
    network = nn.Sequential()
    for stage, (filters, number) in enumerate(zip(_FILTERS, _CONVOLUTIONS[depth], strict=True), start=1):
        for position in range(1, number + 1):
            label = f"{stage}_{position}"
            network.add_module(f"conv{label}", nn.Conv2d(channels, filters, 3, padding=1))
            if batch_norm:
                network.add_module(f"bn{label}", nn.BatchNorm2d(filters))
            network.add_module(f"relu{label}", nn.ReLU())
            channels = filters
        network.add_module(f"pool{stage}", nn.MaxPool2d(2))
    network.add_module("flatten", nn.Flatten())
    fc = nn.Linear(channels * (height // 32) * (width // 32), output_size)
    network.add_module("fc", fc)
    initialise_convolutions(network)
    nn.init.normal_(fc.weight, std=0.01)
    nn.init.zeros_(fc.bias)
    return network
