"""Initial weights of networks for small images."""

from __future__ import annotations

from torch import nn


def initialise_convolutions(network: nn.Module) -> None:
    """Draw the weights of all convolutions from a normal distribution of variance 2 / (kernel size x filters).

    That is He et al. (arXiv 1502.01852) for the backward pass; biases become zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
