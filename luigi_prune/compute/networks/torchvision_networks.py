"""Networks of torchvision with random weights, for classification and segmentation."""

from __future__ import annotations

from typing import Any

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.rows import wrong_channels

# Auxiliary heads off, and their own initial weights without a warning that these will no longer be the default.
_WITHOUT_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
_OF_ONE_SIZE = {"vit": "image_size", "maxvit": "input_size"}  # kinds of networks for images of a size given to them


def classifier(
    input_shape: tuple[int, ...], output_size: int, *, name: str, architecture: str, **kwargs: Any
) -> nn.Module:
    """Return the classifier `architecture` of torchvision; `kwargs` are keywords of torchvision's function."""
    from torchvision import models

    _, height, width = _colour_images(name, input_shape)
    known = models.list_models(module=models)
    if architecture not in known:
        raise ConfigError(f"network.name: torchvision has no classifier {architecture!r}{nearest(architecture, known)}")
    keywords: dict[str, Any] = dict(_WITHOUT_HEADS.get(architecture, {}))
    if keyword := _OF_ONE_SIZE.get(architecture.partition("_")[0]):
        if height != width:
            raise ConfigError(f"network.name: {name} needs square images, got {height}x{width}")
        keywords[keyword] = height if keyword == "image_size" else (height, width)
    _without_weights(name, kwargs)
    network: nn.Module = models.get_model(architecture, weights=None, num_classes=output_size, **keywords | kwargs)
    return network


def segmentation(
    input_shape: tuple[int, ...], output_size: int, *, name: str, architecture: str, **kwargs: Any
) -> nn.Module:
    """Return a segmentation network of torchvision with its auxiliary head; it returns {out, aux}."""
    from torchvision import models

    _colour_images(name, input_shape)
    _without_weights(name, kwargs)
    keywords = {"aux_loss": True, **kwargs}
    network: nn.Module = models.get_model(
        architecture, weights=None, weights_backbone=None, num_classes=output_size, **keywords
    )
    return network


def _colour_images(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of images; raises ConfigError for other inputs and for other than three channels."""
    channels, height, width = image_shape(name, input_shape)
    if channels != 3:
        raise ConfigError(f"network.name: {name} {wrong_channels(3, channels)}")
    return channels, height, width


def _without_weights(name: str, kwargs: dict[str, Any]) -> None:
    """Raise ConfigError for weights given as keywords, which would be downloaded by jobs and be in no key."""
    for keyword in ("weights", "weights_backbone", "pretrained", "progress"):
        if keyword in kwargs:
            raise ConfigError(f"network.kwargs: {name} has no keyword {keyword!r}; give weights as network.weights")
