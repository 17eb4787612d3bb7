"""Sparsity that holds: entries that pruning removed stay exactly zero whatever the optimizer does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luigi_prune.compute.zeros import keep_only


@dataclass(frozen=True)
class Masks:
    """Which entries of some parameters of a network are kept (True)."""

    kept: tuple[tuple[nn.Parameter, Tensor], ...] = ()

    def clear_gradients(self) -> None:
        """Set the gradients of removed entries to zero, so that no momentum builds up there."""
        for parameter, kept in self.kept:
            if parameter.grad is not None:
                keep_only(parameter.grad, kept)

    def clear_weights(self) -> None:
        """Set removed entries to zero: some optimizers move even what has no gradient."""
        for parameter, kept in self.kept:
            keep_only(parameter, kept)


def bind_masks(network: nn.Module, masks: Mapping[str, Tensor] | None, device: torch.device) -> Masks:
    """Return `masks` (parameter name -> True where kept) tied to the parameters of `network`.

    Raises ValueError for a name or a shape that the network does not have.
    """
    parameters = dict(network.named_parameters())
    bound = []
    for name, kept in (masks or {}).items():
        if name not in parameters:
            raise ValueError(f"a mask for {name}, which is no parameter of the network")
        if kept.shape != parameters[name].shape:
            raise ValueError(f"the mask of {name} has shape {tuple(kept.shape)}, not {tuple(parameters[name].shape)}")
        bound.append((parameters[name], kept.to(device=device, dtype=torch.bool, copy=True)))
    return Masks(tuple(bound))
