"""The record of a network pruned by `luigi_prune.api`, and its file: HDF5 with a checksum, no pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.api.compacted import Compacted, compacted
from luigi_prune.api.mask_hooks import hold
from luigi_prune.api.network_files import load_weights, write_network
from luigi_prune.api.plain_network import unwrapped
from luigi_prune.api.validation import guess_input
from luigi_prune.compute import pruning
from luigi_prune.compute.network_inputs import Inputs, checked, network_device
from luigi_prune.compute.pruning import LayerBudget, PruningResult
from luigi_prune.compute.state import from_arrays
from luigi_prune.results.hdf5_file import Result

FAMILY = "Pruned"
_NUMBERS = ("size", "flops", "original_size", "original_flops")


@dataclass(frozen=True, eq=False)
class PrunedLayer(LayerBudget):
    """A compressible layer: the number of kept weights, and its mask or decomposition.

    `mask`: bool, of the weight's shape, True = kept. A decomposed layer has `rank`, `groups` and `folding` instead,
    and the error of the decomposition before any retraining, relative to the layer's operator norm: `error_operator`
    is the true error, `error_estimate` the one used by ALDS (None for Messi; both None for PCA, which approximates
    outputs).
    """

    mask: Tensor | None = field(default=None, repr=False)
    rank: int | None = None
    groups: int | None = None
    folding: int | None = None
    error_estimate: float | None = None
    error_operator: float | None = None


@dataclass(kw_only=True)
class Pruned(PruningResult):
    """A pruned network, its method and its sizes.

    `network` is an ordinary module whose pruned entries stay exactly zero in training (until `api.release`). `method`
    and `target_keep_ratio` are those of the call; `keep_ratio` is what was achieved.
    `flops` and `original_flops` are None without an input to count them on. `layers`: in the network's order.
    """

    layers: Sequence[PrunedLayer] = field(repr=False)
    method: str
    target_keep_ratio: float
    _original: nn.Module | None = field(default=None, repr=False)
    _example: Inputs | None = field(default=None, repr=False)

    @property
    def keep_ratio(self) -> float:
        """The achieved ratio: kept parameters over those of the original network."""
        return self.size / self.original_size

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The arguments of `api.network` that build the unpruned architecture, if it is one with a name."""
        return None

    def compact(self, *, align: int = 1, example_input: Inputs | None = None) -> Compacted:
        """Return the network without its dead filters, channels, heads and ranks, as far as they can be removed.

        align: widths stay multiples of this number, of dead channels if need be; 8 suits most hardware.
        example_input: a batch of inputs, on which outputs are compared; by default that of pruning, else a guess.

        The outputs are those of `network`, which does not change, to 1e-5. `left` of the result names what stays: a
        channel that is dead in one layer of a residual sum but not in the others, for instance. Raises ConfigError if
        the network cannot be probed.
        """
        example = self._example if example_input is None else checked("compact: the example input", example_input)
        small = compacted(
            self.network,
            self.masks,
            guess_input(self.network, 0) if example is None else example,
            align,
            method=self.method,
            structure=self.structure,
            original_size=self.original_size,
            original_flops=self.original_flops,
            counted=example is not None,
        )
        small.recipe = self.recipe
        return small

    def save(self, path: str | Path) -> None:
        """Write everything but the network's code and the example input to an HDF5 file, creating its folder.

        Raises ConfigError if the file exists with another result: results are never overwritten.
        """
        write_network(
            path,
            FAMILY,
            self.network,
            self.masks,
            layers={
                "name": np.array([layer.name for layer in self.layers], dtype=str),
                "kept": np.array([layer.kept for layer in self.layers], dtype=np.int64),
                "total": np.array([layer.total for layer in self.layers], dtype=np.int64),
            },
            numbers={name: getattr(self, name) for name in _NUMBERS},
            meta={"structure": self.structure},
            spec={"method": self.method, "keep_ratio": self.target_keep_ratio},
        )


def read_pruned(result: Result, path: str | Path, network: nn.Module) -> Pruned:
    """Return the network of a file of `Pruned.save`; `network`: the unpruned architecture, which is not changed.

    Raises ConfigError if the architecture does not match.
    """
    structure = result.meta["structure"]
    fresh = pruning.restore(unwrapped(network), structure)
    load_weights(fresh, from_arrays(result.group("weights"), result.meta["types"]), path, "the pruned one")
    masks = {name: torch.from_numpy(mask) for name, mask in result.group("masks").items()}
    numbers: dict[str, Any] = {name: int(result.arrays[name]) if name in result.arrays else None for name in _NUMBERS}
    return Pruned(
        network=hold(fresh, masks),
        masks=masks,
        structure=structure,
        layers=pruned_layers(fresh, masks, structure),
        method=result.spec["method"],
        target_keep_ratio=result.spec["keep_ratio"],
        **numbers,
    )


def pruned_layers(
    network: nn.Module, masks: Mapping[str, Tensor], structure: list[dict[str, Any]]
) -> list[PrunedLayer]:
    """Return the record of every compressible layer, with its mask or its decomposition."""
    decomposed = {entry["layer"]: entry for entry in structure}
    by_layer = pruning.layer_masks(network, masks)
    device = network_device(network)
    layers = []
    for layer in pruning.layer_budgets(network, dict(masks)):
        more: dict[str, Any] = {}
        if (entry := decomposed.get(layer.name)) is not None:
            more = {name: int(entry[name]) for name in ("rank", "groups", "folding")}
            more |= {name: entry.get(name) for name in ("error_estimate", "error_operator")}
        else:
            mask = by_layer.get(layer.name)
            more["mask"] = torch.ones(layer.shape, dtype=torch.bool, device=device) if mask is None else mask
        layers.append(PrunedLayer(layer.name, layer.shape, layer.kept, layer.total, **more))
    return layers
