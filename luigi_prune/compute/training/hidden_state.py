"""State of a network that its tensors' memory does not hold, and that a CUDA graph of a step would not change."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from torch import Tensor, nn

State = dict[str, Any]
_TABLES = ("_parameters", "_buffers")


def hidden_state(network: nn.Module) -> State:
    """Return by name what a step may change beside the numbers in tensors.

    These are the attributes of all modules, with the addresses of tensors, and the states of Python's and NumPy's
    generators. A graph repeats what was done to memory. Numbers that a network counts, tensors that it replaces by new
    ones, and random numbers that are not torch's remain as they were when the graph was recorded.
    """
    state: State = {
        "random numbers of Python": random.getstate(),
        "random numbers of NumPy": tuple(np.random.get_state(legacy=True)),
    }
    for name, module in network.named_modules():
        attributes = vars(module)
        for table in (attributes, *(attributes[each] for each in _TABLES)):
            for key, value in table.items():
                place = f"{name}.{key}" if name else key
                state[place] = (value, _address(value)) if isinstance(value, Tensor) else value
    return state


def _address(tensor: Tensor) -> int:
    """Return where a tensor lies in memory; 0 for one of several parts, such as a sparse one."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def changed(before: State, after: State) -> str:
    """Return the name of something that differs between two states; "" if nothing does."""
    names = (name for name in before.keys() | after.keys() if not _same(before.get(name), after.get(name)))
    return min(names, default="")


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are the same object, or equal plain ones."""
    if one is other:
        return True
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return isinstance(one, (int, float, complex, str, bytes)) and type(one) is type(other) and one == other
