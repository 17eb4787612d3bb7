"""Forms in which a training step runs a network, with equal weights: compiled, and with channels last in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.errors import ConfigError


def compiled(network: nn.Module) -> Callable[..., Any]:
    """Return the network's forward through torch.compile, with its parameters and its mode.

    The call raises ConfigError if torch cannot compile it here, such as without a C++ compiler.
    """
    fast = torch.compile(network)

    def forward(*inputs: Any, **named: Any) -> Any:
        try:
            return fast(*inputs, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
            raise ConfigError(
                f"training.compile: torch.compile fails for {type(network).__name__} here ({reason}); "
                "remove compile, or install a C++ compiler if it is missing"
            ) from error

    return forward


def channels_last(tensor: Tensor) -> Tensor:
    """Return an image batch, (N, C, H, W), with channels as the last axis in memory; other tensors as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
