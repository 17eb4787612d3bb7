"""What an input must measure for a network's layers to leave anything of it."""

from __future__ import annotations

from luigi_prune.errors import ConfigError


class InputTooSmall(ConfigError, ValueError):
    """An input that is smaller than what a network's layers need."""


def image_shape(name: str, input_shape: tuple[int, ...], minimum: int) -> tuple[int, int, int]:
    """Return (channels, height, width), or raise InputTooSmall naming the minimum for network `name`."""
    if len(input_shape) != 3:
        raise ConfigError(
            f"network.name: {name} takes images (channels, height, width), not inputs of shape {input_shape}"
        )
    channels, height, width = input_shape
    if min(height, width) < minimum:
        raise InputTooSmall(
            f"network.name: {name} needs images of at least {minimum}x{minimum}, got {height}x{width}"
            "; pad or resize them in the transforms, or choose another network"
        )
    return channels, height, width
