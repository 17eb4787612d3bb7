"""The record of a network whose dead channels are gone, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.api.mask_hooks import hold, release
from luigi_prune.api.network_files import load_weights, write_network
from luigi_prune.api.plain_network import unwrapped
from luigi_prune.compute import pruning
from luigi_prune.compute.network_inputs import Inputs, select
from luigi_prune.compute.pruning.compaction import Compaction, CompactLayer, compact, rebuild
from luigi_prune.compute.pruning.compaction.shrinking import as_entries
from luigi_prune.compute.state import from_arrays
from luigi_prune.errors import ConfigError
from luigi_prune.results.hdf5_file import Result

COMPACTED = "Compacted"
_NUMBERS = ("flops", "original_size", "original_flops")
_COUNTED = 2  # samples that multiply-adds are counted on; statistics of a batch need two
_COLUMNS = ("filters", "channels", "kept_filters", "kept_channels", "dead_filters")


@dataclass(kw_only=True)
class Compacted:
    """A network without its dead channels, and what could not be removed.

    `network` is an ordinary module with smaller layers. Zeros that are left in them are held like those of a `Pruned`.
    `size`: the parameters that it stores. `kept`: those of them that no mask removes. `flops`: multiply-adds of one
    sample, zeros included. `layers`: per layer its filters and channels before and after, the dead filters that stay,
    and why. `difference`: of its outputs from the masked network's, at most 1e-5 of the largest output (or of 1).
    `recipe`: the arguments of `api.network` that build the unpruned architecture, if it has a name.
    """

    network: nn.Module = field(repr=False)
    masks: dict[str, Tensor] = field(repr=False)
    layers: Sequence[CompactLayer] = field(repr=False)
    size: int
    kept: int
    flops: int | None
    original_size: int
    original_flops: int | None
    method: str
    difference: float
    structure: list[dict[str, Any]] = field(repr=False)
    plan: list[dict[str, Any]] = field(repr=False)
    recipe: dict[str, Any] | None = field(default=None, repr=False)
    _example: Inputs | None = field(default=None, repr=False)

    @property
    def left(self) -> dict[str, tuple[int, str]]:
        """The layers with dead filters that could not be removed: their number and the reason."""
        return {layer.name: (layer.dead_filters, layer.why) for layer in self.layers if layer.dead_filters}

    def save(self, path: str | Path) -> None:
        """Write everything but the network's code to an HDF5 file; `api.load(path, network)` reads it.

        Raises ConfigError if the file exists with another result: results are never overwritten.
        """
        columns = {name: np.array([getattr(layer, name) for layer in self.layers], dtype=np.int64) for name in _COLUMNS}
        write_network(
            path,
            COMPACTED,
            self.network,
            self.masks,
            layers={
                "name": np.array([layer.name for layer in self.layers], dtype=str),
                "why": np.array([layer.why for layer in self.layers], dtype=str),
                **columns,
            },
            numbers={name: getattr(self, name) for name in _NUMBERS},
            meta={"structure": self.structure, "plan": self.plan, "difference": self.difference},
            spec={"method": self.method},
        )


def compacted(
    network: nn.Module,
    masks: dict[str, Tensor],
    example: Inputs,
    align: Any,
    *,
    method: str,
    structure: list[dict[str, Any]],
    original_size: int,
    original_flops: int | None,
    counted: bool = True,
) -> Compacted:
    """Return `network`, which does not change, without the channels that `masks` have made useless.

    `counted` False: FLOPs depend on the input's size, and `example` is only a guess.
    """
    if isinstance(align, bool) or not isinstance(align, int) or align < 1:
        raise ConfigError(f"compact: align: expected a whole number of at least 1, got {align!r}")
    free = release(unwrapped(network))
    found: Compaction = compact(free, example, masks, align=align)
    return Compacted(
        network=hold(found.network, found.masks),
        masks=found.masks,
        layers=found.layers,
        size=pruning.count_size(found.network),
        kept=pruning.count_size(found.network, found.masks),
        flops=pruning.count_flops(found.network, select(example, slice(_COUNTED))) if counted else None,
        original_size=original_size,
        original_flops=original_flops,
        method=method,
        difference=found.difference,
        structure=structure,
        plan=as_entries(found.plan),
        _example=example if counted else None,
    )


def read_compacted(result: Result, path: str | Path, network: nn.Module) -> Compacted:
    """Return the network of a file of `Compacted.save`; `network`: the unpruned architecture, which is not changed."""
    meta = result.meta
    small = rebuild(unwrapped(network), meta["structure"], meta["plan"])
    load_weights(small, from_arrays(result.group("weights"), meta["types"]), path, "the compact one")
    masks = {name: torch.from_numpy(mask) for name, mask in result.group("masks").items()}
    columns = result.group("layers")
    rows = zip(columns["name"], *(columns[name] for name in _COLUMNS), columns["why"], strict=True)
    numbers: dict[str, Any] = {name: int(result.arrays[name]) if name in result.arrays else None for name in _NUMBERS}
    return Compacted(
        network=hold(small, masks),
        masks=masks,
        layers=[
            CompactLayer(str(row[0]), **{c: int(n) for c, n in zip(_COLUMNS, row[1:-1], strict=True)}, why=str(row[-1]))
            for row in rows
        ],
        size=pruning.count_size(small),
        kept=pruning.count_size(small, masks),
        method=result.spec["method"],
        difference=float(meta["difference"]),
        structure=meta["structure"],
        plan=meta["plan"],
        **numbers,
    )
