"""Networks of the registry outside of experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luigi_prune import registry
from luigi_prune.compute import networks
from luigi_prune.errors import ConfigError, nearest

__all__ = ["network"]


def network(
    name: str,
    /,
    input_shape: Any,
    outputs: int,
    *,
    seed: int | None = None,
    weights: str | Path | None = None,
    new_layers: Sequence[str] = (),
    **kwargs: Any,
) -> nn.Module:
    """Return the network `name`, untrained unless `weights` are given.

    name: of a network in docs/networks.md or of an installed package, or an import path ("module:function") of a module
        in the working directory or on the Python path.
    input_shape: of one sample, without the batch axis: (3, 32, 32). A tuple or dictionary of shapes if a network from
        outside takes several inputs.
    outputs: the number of outputs, such as classes.
    seed: of the weights; by default they are drawn from torch's global generator, like those of any module.
    weights: a file with a state dictionary (.pt, .pth, .safetensors) that fits the network key by key.
    new_layers: names or patterns of layers that keep random weights, and are not read from the file.
    kwargs: further keywords of the function that builds the network.

    Raises ConfigError for an unknown name (with the nearest one), for keywords that the network does not have, for
    inputs that it cannot take, and for weights that do not fit.
    """
    if not _is_shape(input_shape):
        raise ConfigError(f"input_shape: expected positive integers without the batch axis, got {input_shape!r}")
    shape: Any = input_shape if isinstance(input_shape, Mapping) else tuple(input_shape)
    if not _is_positive_integer(outputs):
        raise ConfigError(f"outputs: expected a positive integer, got {outputs!r}")
    folder = Path.cwd()
    resolved = registry.resolve_name("network", name, folder)
    registry.look_in(folder)
    row = registry.find("network", resolved)
    for keyword in kwargs:
        if keyword not in row.keywords and not row.open_ended:
            hint = nearest(keyword, row.keywords) if row.keywords else "; it has none"
            raise ConfigError(f"{row.name} has no keyword {keyword!r}{hint}")
    if missing := [keyword for keyword in row.required if keyword not in kwargs]:
        raise ConfigError(f"{row.name} needs the keyword {missing[0]!r}")
    drawn = int(torch.randint(2**62, ())) if seed is None else seed
    built = networks.build(resolved, shape, int(outputs), drawn, kwargs)
    if weights is not None:
        networks.load_weights(built, str(weights), new_layers)
    elif new_layers:
        raise ConfigError("new_layers has no meaning without weights")
    return built


def _is_shape(value: object) -> bool:
    """Return whether `value` is a shape, or a sequence or dictionary of shapes."""
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_shape, value.values()))
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return False
    return all(map(_is_positive_integer, value)) or all(map(_is_shape, value))


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
