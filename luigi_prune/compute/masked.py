"""Pruned entries of parameters: which they are, and the one way in which they are set and kept to zero.

The training loop clears gradients and weights around each optimizer step, the hooks of `holding` do the same from
inside a network, pruning and rewinding clear weights once: all of them through `MaskedParameter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luigi_prune.compute.zeros import keep_only
from luigi_prune.errors import ConfigError


@dataclass(eq=False)
class MaskedParameter:
    """A parameter and its mask: bool, of its shape, True where an entry is kept. The mask follows it to its device."""

    parameter: nn.Parameter
    mask: Tensor

    def mask_on(self, device: torch.device) -> Tensor:
        """Return the mask, from now on on `device`."""
        if self.mask.device != device:
            self.mask = self.mask.to(device)
        return self.mask

    def clear_gradient(self) -> None:
        """Set the gradient of pruned entries to zero, so that no momentum builds up there."""
        if self.parameter.grad is not None:
            keep_only(self.parameter.grad, self.mask_on(self.parameter.grad.device))

    def clear_weight(self) -> None:
        """Set pruned entries to zero: some optimizers move even what has no gradient."""
        # `.data`, because a module that is called twice in one pass must not look changed to the backward pass.
        data = self.parameter.data
        keep_only(data, self.mask_on(data.device))


def masked_parameters(network: nn.Module, masks: Mapping[str, Tensor]) -> list[MaskedParameter]:
    """Return the parameters of `network` that `masks` (parameter name -> True where kept) names.

    Raises ConfigError for a name or a shape that the network does not have.
    """
    parameters = dict(network.named_parameters())
    masked = []
    for name, mask in masks.items():
        if name not in parameters:
            raise ConfigError(f"mask {name!r}: the network has no such parameter")
        parameter = parameters[name]
        if mask.shape != parameter.shape:
            raise ConfigError(f"mask {name!r}: expected shape {tuple(parameter.shape)}, got {tuple(mask.shape)}")
        masked.append(MaskedParameter(parameter, mask.to(device=parameter.device, dtype=torch.bool)))
    return masked


def apply_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every pruned entry of `network` to zero, in place; raises ConfigError for a mask that fits no parameter."""
    for masked in masked_parameters(network, masks):
        masked.clear_weight()
