"""Flows for tables: FFJORD's networks of gated layers (Grathwohl et al. 2019, arXiv 1810.01367)."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.networks.continuous import ACTIVATIONS
from luigi_prune.compute.networks.densities import Flow, FlowBlock
from luigi_prune.compute.networks.ode import Solver, torchdiffeq
from luigi_prune.errors import ConfigError

_SOLVER = Solver(atol=1e-8, rtol=1e-6)


class ConcatSquashLinear(nn.Module):
    """A linear layer with a gate and a shift that depend on the time: (W x + b) * sigmoid(g t + c) + h t."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self._layer = nn.Linear(inputs, outputs)
        self._hyper_bias = nn.Linear(1, outputs, bias=False)
        self._hyper_gate = nn.Linear(1, outputs)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return (samples, outputs) for x (samples, inputs) at time t."""
        t = t.reshape(1, 1)
        if not self.training:  # multiply-adds are counted per sample
            t = t.expand(len(x), 1)
        result: Tensor = self._layer(x) * torch.sigmoid(self._hyper_gate(t)) + self._hyper_bias(t)
        return result


class GatedField(nn.Module):
    """`ConcatSquashLinear` layers with activations between them."""

    def __init__(self, features: int, layers: int, hidden: int, activation: str):
        super().__init__()
        sizes = [features, *[hidden] * layers, features]
        self.layers = nn.ModuleList(ConcatSquashLinear(*pair) for pair in itertools.pairwise(sizes))
        self.activation = ACTIVATIONS[activation]()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Return the derivative of the state z (samples, features) at time t."""
        for index, layer in enumerate(self.layers):
            z = layer(t, self.activation(z) if index else z)
        return z


class TabularFlow(Flow):
    """A flow whose gates and shifts are not pruned."""

    def is_compressible(self, module: nn.Module) -> bool:
        """Return whether methods may prune `module`: only the layers that read the state."""
        layers = (layer._layer for layer in self.modules() if isinstance(layer, ConcatSquashLinear))
        return any(module is layer for layer in layers)


def tabular_flow(
    input_shape: Any, output_size: int, name: str, layers: int, factor: int, blocks: int, activation: str
) -> TabularFlow:
    """Return a density of vectors: `blocks` integrations with hidden layers `factor` times as wide as the data."""
    torchdiffeq()
    if len(input_shape) != 1:
        raise ConfigError(f"network.name: {name} takes vectors, got inputs of shape {tuple(input_shape)}")
    (features,) = input_shape
    if features != output_size:
        raise ConfigError(
            f"network.outputSize: {name} moves its input, so it has as many outputs as features: expected {features}, "
            f"got {output_size}"
        )
    fields = (GatedField(features, layers, factor * features, activation) for _ in range(blocks))
    return TabularFlow(FlowBlock(field, _SOLVER, trainable_time=True) for field in fields)
