"""Networks whose name means one network for small images and another for large ones."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from luigi_prune.compute.networks.alexnet import alexnet_cifar
from luigi_prune.compute.networks.sizes import image_shape
from luigi_prune.compute.networks.torchvision_networks import classifier
from luigi_prune.compute.networks.vgg import vgg_cifar
from luigi_prune.errors import ConfigError
from luigi_prune.registry.network_families import SMALL_IMAGE

log = logging.getLogger("luigi_prune")


def small_network(input_shape: tuple[int, ...], output_size: int, *, name: str, architecture: str) -> nn.Module:
    """Return the AlexNet or VGG for small images."""
    channels, height, width = image_shape(name, input_shape)
    if architecture == "alexnet":
        return alexnet_cifar(channels, height, width, output_size)
    depth, _, suffix = architecture.removeprefix("vgg").partition("_")
    return vgg_cifar(channels, height, width, output_size, depth=int(depth), batch_norm=suffix == "bn")


def network_by_size(
    input_shape: tuple[int, ...], output_size: int, *, name: str, architecture: str, **kwargs: Any
) -> nn.Module:
    """Return the network for small images if an edge has less than `SMALL_IMAGE` pixels, else torchvision's."""
    _, height, width = image_shape(name, input_shape)
    images = f"images of {height}x{width} pixels"
    if min(height, width) >= SMALL_IMAGE:
        log.info("network.name: %s is torchvision's for %s; %s_cifar is that for small ones", name, images, name)
        return classifier(input_shape, output_size, name=f"torchvision:{name}", architecture=architecture, **kwargs)
    log.info("network.name: %s is that of CIFAR papers for %s; torchvision:%s is torchvision's", name, images, name)
    if kwargs:
        raise ConfigError(f"network.kwargs: {name} has no keyword {next(iter(kwargs))!r} for {images}; it has none")
    return small_network(input_shape, output_size, name=name, architecture=architecture)
