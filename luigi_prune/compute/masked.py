"""Masked parameters: the only code that sets pruned entries to zero.

The training loop clears gradients and weights around each optimizer step, the hooks of `api.mask_hooks` do the same
from inside a network, and pruning and rewinding clear weights once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from luigi_prune.compute.zeros import bits_of, keep_bits, keep_only
from luigi_prune.errors import ConfigError


@dataclass(eq=False)
class MaskedParameter:
    """A parameter and its mask: bool, of the same shape, True for kept entries; moved to the parameter's device."""

    parameter: nn.Parameter
    mask: Tensor
    _bits: Tensor | None = field(default=None, init=False, repr=False)  # the mask in the form that is applied fastest

    def mask_on(self, device: torch.device) -> Tensor:
        """Move the mask to `device` and return it."""
        if self.mask.device != device:
            self.mask = self.mask.to(device)
        return self.mask

    @property
    def prunes(self) -> bool:
        """Whether the mask prunes any entry."""
        return not bool(self.mask.all())

    def clear_gradient(self) -> None:
        """Set the gradient of pruned entries to zero, so that they build up no momentum."""
        if (gradient := self.parameter.grad) is None:
            return
        if self._bits is None or self._bits.device != gradient.device:
            self._bits = bits_of(self.mask_on(gradient.device), gradient.dtype)
        if self._bits is None or gradient.layout != torch.strided:
            keep_only(gradient, self.mask)
        else:
            keep_bits(gradient, self._bits)

    def clear_weight(self) -> None:
        """Set pruned entries to zero: some optimizers change even entries without a gradient."""
        # `.data`, or autograd would report an in-place change for a module that is called twice in one pass.
        data = self.parameter.data
        if self._bits is not None and self._bits.device == data.device:
            keep_bits(data, self._bits)
        else:
            keep_only(data, self.mask_on(data.device))


def masked_parameters(network: nn.Module, masks: Mapping[str, Tensor]) -> list[MaskedParameter]:
    """Return the parameters of `network` that `masks` (parameter name -> True for kept entries) names.

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
