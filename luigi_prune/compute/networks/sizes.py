"""Checks of the input size that a network needs."""

from __future__ import annotations

from luigi_prune.errors import ConfigError


class InputTooSmall(ConfigError, ValueError):
    """An input too small for a network's layers."""


def image_shape(name: str, input_shape: tuple[int, ...], minimum: int) -> tuple[int, int, int]:
    """Return (channels, height, width); raise InputTooSmall for less than `minimum` pixels per edge."""
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
