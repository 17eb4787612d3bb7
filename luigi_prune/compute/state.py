"""State dictionaries as named numpy arrays and back, with order, types (including bfloat16) and buffers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.errors import ConfigError

# types that numpy lacks: stored as the bits in an integer array and the name of the type
_AS_BITS = {torch.bfloat16: torch.int16}
_BITS = {str(dtype).removeprefix("torch."): dtype for dtype in _AS_BITS}


def tensors_of_state(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return `state`; raise ConfigError for a value that is no tensor (a module's `get_extra_state` may return it)."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ConfigError(f"{name!r} of the network's state is no tensor ({kind}): files hold tensors only")
    return state


def to_arrays(state: Mapping[str, Tensor]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors as arrays, and the names of the types that numpy lacks; raise ConfigError for other values."""
    arrays, types = {}, {}
    for name, tensor in tensors_of_state(state).items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dtype in _AS_BITS:
            types[name] = str(tensor.dtype).removeprefix("torch.")
            tensor = tensor.view(_AS_BITS[tensor.dtype])
        elif tensor.is_floating_point():
            tensor = tensor + 0.0  # a masked weight may be a negative zero: -0.0 + 0.0 is 0.0
        arrays[name] = tensor.numpy()
    return arrays, types


def from_arrays(arrays: Mapping[str, np.ndarray], types: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors from the results of `to_arrays`."""
    state = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(np.array(array))
        state[name] = tensor.view(_BITS[types[name]]) if name in types else tensor
    return state


def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a stored state into `network`, as one of the modules' present versions.

    Stored states do not hold the versions of modules. Without them a module takes the state for one of the time before
    versions, and converts it or fails.
    """
    versioned: OrderedDict[str, Tensor] = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(versioned)
