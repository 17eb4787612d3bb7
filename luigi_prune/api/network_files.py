"""Files of networks without their code: weights, masks and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from luigi_prune.compute.state import load_state, to_arrays
from luigi_prune.errors import ConfigError
from luigi_prune.results.hdf5_file import content_sha256, read_about, write_result
from luigi_prune.results.provenance import provenance


def write_network(
    path: str | Path,
    family: str,
    network: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    layers: Mapping[str, np.ndarray],
    numbers: Mapping[str, int | None],
    meta: dict[str, Any],
    spec: dict[str, Any],
) -> None:
    """Write a network's weights, masks, columns of its layers, and numbers that are known, to an HDF5 file.

    Raises ConfigError if the file exists with another result: results are never overwritten.
    """
    weights, types = to_arrays(network.state_dict())
    arrays: dict[str, Any] = {f"weights/{name}": array for name, array in weights.items()}
    arrays |= {f"masks/{name}": mask.cpu().numpy() for name, mask in masks.items()}
    arrays |= {f"layers/{name}": column for name, column in layers.items()}
    arrays |= {name: np.int64(number) for name, number in numbers.items() if number is not None}
    meta = {"types": types, **meta}
    key = content_sha256(arrays, meta | spec)
    about: dict[str, Any] = {"family": family, "key": key, "spec": spec, "provenance": provenance(), "meta": meta}
    if not write_result(path, arrays=arrays, **about) and read_about(path)["key"] != key:
        raise ConfigError(f"{path}: the file exists with another result, and results are never overwritten")


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Load the weights of a file, `what` of it, into `network`; raises ConfigError if they do not match."""
    try:
        load_state(network, state)
    except RuntimeError as error:
        reason = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ConfigError(f"{path}: the network does not match {what}: {reason[0]}") from error
