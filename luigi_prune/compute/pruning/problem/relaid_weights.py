"""Layers that store their weight the other way round, with weights of shape (filters, entries of a filter, ...)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.equivalents import Equivalent, Named, PartLinear, has_own_forward

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class RelaidLinear(Equivalent, PartLinear):
    """A `Linear` for transformers' `Conv1D`, whose weight is (inputs, outputs).

    Recognised by its name, its two parameters and its attribute `nf`, so that transformers need not be installed.
    """

    def __init__(self, module: nn.Module) -> None:
        inputs, outputs = module.get_parameter("weight").shape
        super().__init__(inputs, outputs, device="meta")
        self.adopt(module)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        named: Any = next((kind for kind in type(module).__mro__ if kind.__name__ == "Conv1D"), None)
        if named is None or list(module._parameters) != ["weight", "bias"] or module._modules:
            return False
        weight, bias = module._parameters["weight"], module._parameters["bias"]
        if not isinstance(weight, nn.Parameter) or not isinstance(bias, nn.Parameter) or weight.dim() != 2:
            return False
        plain = type(module).forward is named.forward and "forward" not in vars(module)
        return plain and len(bias) == weight.shape[1] == getattr(module, "nf", None)

    @staticmethod
    def split(module: nn.Module, values: Named) -> dict[str, Tensor]:
        return {name: value.T if name == "weight" else value for name, value in values.items()}

    join = split


class UpConvolution(Equivalent, nn.Module):
    """A transposed convolution with a weight of shape (filters, channels of a group, kernel ...)."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        assert isinstance(module, TRANSPOSED)
        self.groups, self.kernel_size, self.stride = module.groups, module.kernel_size, module.stride
        self.padding, self.dilation = module.padding, module.dilation
        self.in_channels, self.out_channels = module.in_channels, module.out_channels
        self.register_parameter("bias", None)
        self.adopt(module)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        plain = isinstance(module, TRANSPOSED) and not has_own_forward(module)
        return plain and isinstance(module._parameters.get("weight"), nn.Parameter)

    @staticmethod
    def split(module: nn.Module, values: Named) -> dict[str, Tensor]:
        return {name: _turned(value, module.groups) if name == "weight" else value for name, value in values.items()}

    join = split

    def forward(self, value: Tensor, output_size: list[int] | None = None) -> Tensor:
        module: Any = self._shell[0]
        axes = len(self.kernel_size)
        padding = module._output_padding(
            value, output_size, self.stride, self.padding, self.kernel_size, axes, self.dilation
        )
        function: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        weight = _turned(self.weight, self.groups)
        return function(value, weight, self.bias, self.stride, self.padding, padding, self.groups, self.dilation)


def _turned(weight: Tensor, groups: Any) -> Tensor:
    """Return a weight (a, b / groups, ...) as (b, a / groups, ...): its own inverse."""
    return torch.cat([part.transpose(0, 1) for part in weight.chunk(int(groups))])
