"""Networks of timm with random weights (an optional dependency)."""

from __future__ import annotations

from typing import Any

from torch import nn

from luigi_prune.compute.networks.sizes import image_shape
from luigi_prune.errors import ConfigError, nearest


def timm_network(
    input_shape: tuple[int, ...], output_size: int, *, name: str, architecture: str, **kwargs: Any
) -> nn.Module:
    """Return timm's network `architecture`; `kwargs` are keywords of `timm.create_model`.

    Networks for images of one size are built for that of the data.
    """
    import timm

    channels, height, width = image_shape(name, input_shape)
    kind = architecture.partition(".")[0]
    if not timm.is_model(kind):
        raise ConfigError(f"network.name: timm has no network {kind!r}{nearest(kind, timm.list_models())}")
    if kwargs.get("pretrained") or "checkpoint_path" in kwargs:
        raise ConfigError(f"network.kwargs: {name}: give weights as network.weights")
    configuration = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    keywords: dict[str, Any] = {"in_chans": channels, "num_classes": output_size}
    if getattr(configuration, "fixed_input_size", False):
        keywords["img_size"] = (height, width)
    network: nn.Module = timm.create_model(architecture, **{**keywords, **kwargs, "pretrained": False})
    return network
