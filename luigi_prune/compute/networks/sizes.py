"""Checks of the input size that a network needs."""

from __future__ import annotations

from luigi_prune.errors import ConfigError
from luigi_prune.registry import NETWORKS


class InputTooSmall(ConfigError, ValueError):
    """An input too small for a network's layers."""


def image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width); raise InputTooSmall for fewer pixels per edge than `name` needs by its row."""
    minimum = NETWORKS[name].smallest
    if len(input_shape) != 3:
        raise ConfigError(
            f"network.name: {name}: expected images (channels, height, width), got inputs of shape {input_shape}"
        )
    channels, height, width = input_shape
    if min(height, width) < minimum:
        raise InputTooSmall(
            f"network.name: {name} needs images of at least {minimum}x{minimum}, got {height}x{width}"
            "; pad or resize them in the transforms, or choose another network"
        )
    return channels, height, width
