"""Networks of continuous depth for vectors: neural ODEs, and densities as continuous normalising flows.

Chen et al. 2018 (arXiv 1806.07366), Grathwohl et al. 2019 (arXiv 1810.01367); pruned by Liebenwein et al. 2021 (arXiv
2106.12718).
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from luigi_prune.compute.networks.densities import Flow, FlowBlock
from luigi_prune.compute.networks.ode import PROBE, Solver, integrate, torchdiffeq
from luigi_prune.errors import ConfigError

ACTIVATIONS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "relu": nn.ReLU}


class VectorField(nn.Module):
    """Linear layers with activations between them, a function of the state and not of the time."""

    def __init__(self, features: int, layers: int, hidden: int, activation: str):
        super().__init__()
        sizes = [features, *[hidden] * (layers - 1), features]
        parts: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            parts += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Return the derivative of the state z (samples, features)."""
        derivative: Tensor = self.layers(z)
        return derivative


class NeuralODE(nn.Module):
    """A classifier: the state at time 1 that starts as the input is the logits.

    `evaluations`: how often the last forward evaluated the field.
    """

    def __init__(self, field: nn.Module, solver: Solver):
        super().__init__()
        self.field, self.solver = field, solver
        self.evaluations = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (samples, features) of inputs of the same shape."""
        self.evaluations = 0
        return integrate(self._derivative, x, self.solver, list(self.field.parameters()), training=self.training)

    def simplify_for_probe(self) -> None:
        """Take few steps from now on."""
        self.solver = PROBE

    def _derivative(self, t: Tensor, z: Tensor) -> Tensor:
        self.evaluations += 1
        derivative: Tensor = self.field(t, z)
        return derivative


def node(input_shape: Any, output_size: int, name: str, solver: dict[str, Any], **field: Any) -> NeuralODE:
    """Return the classifier `name` for vectors of `output_size` features."""
    return NeuralODE(VectorField(_features(name, input_shape, output_size), **field), _solver(solver))


def density(input_shape: Any, output_size: int, name: str, exact: bool, solver: dict[str, Any], **field: Any) -> Flow:
    """Return the density `name` of vectors of `output_size` features, with the exact trace or Hutchinson's estimate."""
    features = _features(name, input_shape, output_size)
    return Flow([FlowBlock(VectorField(features, **field), _solver(solver), exact=exact)])


def _features(name: str, input_shape: Any, output_size: int) -> int:
    """Return the number of features of a vector; raises ConfigError for other inputs or another `output_size`."""
    torchdiffeq()
    if len(input_shape) != 1:
        raise ConfigError(f"network.name: {name} takes vectors, got inputs of shape {tuple(input_shape)}")
    if input_shape[0] != output_size:
        raise ConfigError(
            f"network.outputSize: {name} moves its input, so it has as many outputs as features: expected "
            f"{input_shape[0]}, got {output_size}"
        )
    return output_size


def _solver(settings: dict[str, Any]) -> Solver:
    return Solver(**settings)
