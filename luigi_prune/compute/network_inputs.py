"""Inputs and outputs of networks: one tensor, or several in tuples, lists and dictionaries.

Inputs are a tensor x, for network(x); a tuple or list, for network(*inputs); or a dictionary, for network(**inputs). A
list of tensors that is one argument is written as a tuple of one: ([a, b],). Every tensor in them has the same samples
along its first axis. None, bools, numbers and strings are passed on as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.errors import ConfigError

Inputs = Any  # a Tensor, or a nested tuple, list or mapping of tensors; the functions of this module check and read it
_PASSED_ON = (type(None), bool, int, float, complex, str, torch.device, torch.dtype)
_PREDICTIONS = ("logits", "out")  # the names under which networks with several outputs return their prediction


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """Return the output of `network` for `inputs`, as it is."""
    if isinstance(inputs, Tensor):
        return network(inputs)
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs)


def call_on_copy(network: Callable[..., Any], inputs: Inputs) -> Any:
    """Return `call` for a copy of `inputs`, which a network may change in place: they are read more than once."""
    return call(network, copied(inputs))


def map_leaves(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Return `inputs` with `function(value)` in place of everything that is no container; mappings become dicts."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: map_leaves(function, value) for key, value in inputs.items()}
    if isinstance(inputs, list):
        return [map_leaves(function, value) for value in inputs]
    if isinstance(inputs, tuple):
        return tuple(map_leaves(function, value) for value in inputs)
    return function(inputs)


def map_tensors(function: Callable[[Tensor], Any], inputs: Inputs) -> Any:
    """Return `inputs` with `function(tensor)` in place of every tensor; mappings become dicts."""
    return map_leaves(lambda value: function(value) if isinstance(value, Tensor) else value, inputs)


def sample_shape(inputs: Inputs) -> Any:
    """Return the shape of one sample, (3, 32, 32), or a tuple or dictionary of such shapes."""
    return map_leaves(lambda tensor: tuple(tensor.shape[1:]), inputs)


def leaves(inputs: Inputs, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of everything in `inputs` that is no container: "ids", "1", or "features.0" if nested."""
    items: Any = None
    if isinstance(inputs, Mapping):
        items = inputs.items()
    elif isinstance(inputs, (tuple, list)):
        items = enumerate(inputs)
    if items is None:
        yield name, inputs
    else:
        for key, value in items:
            yield from leaves(value, f"{name}.{key}" if name else str(key))


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """Return all tensors of `inputs`, in the order of `map_tensors`."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return [value for _, value in leaves(inputs) if isinstance(value, Tensor)]


def sample_count(inputs: Inputs) -> int:
    """Return the number of samples in a batch."""
    return len(inputs) if isinstance(inputs, Tensor) else len(tensors_of(inputs)[0])


def device_of(inputs: Inputs) -> torch.device:
    """Return the device of the first tensor."""
    return tensors_of(inputs)[0].device


def network_device(network: nn.Module, example: Inputs = None) -> torch.device:
    """Return the device of the first parameter; without parameters, that of `example`, or the CPU."""
    otherwise = torch.device("cpu") if example is None else device_of(example)
    return next((parameter.device for parameter in network.parameters()), otherwise)


def select(inputs: Inputs, rows: slice) -> Inputs:
    """Return some samples of a batch, views of the same memory."""
    return map_tensors(lambda tensor: tensor[rows], inputs)


def split(inputs: Inputs, sizes: int | Sequence[int]) -> list[Inputs]:
    """Return a batch in pieces of `sizes` samples, or of one size, views of the same memory; None is `None` in each."""
    if isinstance(inputs, Tensor):
        return list(inputs.split(sizes if isinstance(sizes, int) else list(sizes)))
    if isinstance(sizes, int):
        count = sample_count(inputs)
        sizes = [min(sizes, count - start) for start in range(0, count, sizes)]
    pieces, start = [], 0
    for size in sizes:
        pieces.append(select(inputs, slice(start, start + size)))
        start += size
    return pieces


def join(batches: Sequence[Inputs]) -> Inputs:
    """Return batches of one `form` as one batch."""
    if len(batches) == 1:
        return batches[0]
    columns = zip(*(tensors_of(batch) for batch in batches), strict=True)
    return map_tensors(lambda _: torch.cat(next(columns)), batches[0])


def first_and_last(batch: Inputs) -> Inputs:
    """Return the first and the last sample of a batch as a batch."""
    return join([select(batch, slice(1)), select(batch, slice(-1, None))])


def stack(samples: Sequence[Inputs]) -> Inputs:
    """Return single samples, without the first axis, as a batch."""
    return join([map_tensors(lambda tensor: tensor[None], sample) for sample in samples])


def form(inputs: Inputs, *, dtypes: bool = False) -> Any:
    """Return what batches have in common that can be joined: containers, shapes of samples, other values, `dtypes`."""
    if isinstance(inputs, Tensor):
        return inputs.shape[1:], inputs.dtype if dtypes else None
    return [
        (name, form(value, dtypes=dtypes) if isinstance(value, Tensor) else repr(value))
        for name, value in leaves(inputs)
    ]


def same_samples(batch: Inputs, other: Inputs) -> bool:
    """Return whether `other` begins with the samples of `batch`."""
    if form(batch, dtypes=True) != form(other, dtypes=True):
        return False
    count = sample_count(batch)
    return all(torch.equal(a, b[:count]) for a, b in zip(tensors_of(batch), tensors_of(other), strict=True))


def to_device(inputs: Inputs, device: torch.device | str, *, non_blocking: bool = False) -> Inputs:
    """Return `inputs` with all tensors on `device`."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking), inputs)


def copied(inputs: Inputs, device: torch.device | None = None) -> Inputs:
    """Return a copy without gradients, on `device` if given: a network may change its inputs in place."""
    return map_tensors(lambda tensor: tensor.detach().clone().to(device or tensor.device), inputs)


def checked(what: str, inputs: object) -> Inputs:
    """Return `inputs` with mappings as dictionaries and lists as they are.

    Raises ConfigError, beginning with `what`, for values that are no inputs, tensors without a batch axis or of
    different numbers of samples, and a batch without samples.
    """
    if isinstance(inputs, Mapping) and not all(isinstance(key, str) for key in inputs):
        raise ConfigError(f"{what}: expected a dictionary by the names of the network's arguments, got other keys")
    first: tuple[str, int] | None = None
    for name, value in leaves(inputs):
        label = f"{what}, input {name!r}" if name else what
        if isinstance(value, Tensor):
            if not value.dim():
                cure = "; give it as a Python number" if name else ""
                raise ConfigError(f"{label}: expected a batch, got a tensor without axes{cure}")
            if first is not None and len(value) != first[1]:
                raise ConfigError(
                    f"{label}: {len(value)} samples along the first axis, but input {first[0]!r} has {first[1]}"
                )
            first = first or (name, len(value))
        elif not (name and isinstance(value, _PASSED_ON)):
            cure = "; convert it with torch.from_numpy" if type(value).__module__ == "numpy" else ""
            raise ConfigError(
                f"{label}: expected a tensor, or a tuple, list or dictionary of tensors, got a "
                f"{type(value).__name__}{cure}"
            )
    if first is None:
        raise ConfigError(f"{what} has no tensor")
    if not first[1]:
        raise ConfigError(f"{what} has no samples")
    return map_tensors(lambda tensor: tensor, inputs)


# ------------------------------------------------------------------------------------------------------------ outputs


def tensors_in(output: object) -> list[Tensor]:
    """Return the floating-point tensors of a network's output, from nested tuples, lists, mappings and dataclasses."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, (tuple, list)):
        parts = list(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, each.name) for each in dataclasses.fields(output)]
    else:
        return []
    return [tensor for part in parts for tensor in tensors_in(part)]


def prediction(output: Any) -> Tensor:
    """Return the tensor of a network's output that losses and metrics by name read.

    The output itself, its attribute or key `logits` or `out`, the first of a tuple, or the only tensor. Raises
    ConfigError if there is none of these.
    """
    if isinstance(output, Tensor):
        return output
    for name in _PREDICTIONS:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    tensors = tensors_in(output)
    if len(tensors) == 1 or (tensors and isinstance(output, (tuple, list))):
        return tensors[0]
    has = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise ConfigError(
        f"network.name: its output is a {type(output).__name__}{has}, in which losses and metrics find no `logits`; "
        "return a tensor, or name it `logits`"
    )


def split_output(output: Any, sizes: Sequence[int]) -> list[Any] | None:
    """Return the output for a batch as the outputs for its pieces of `sizes` samples; None if it has other axes."""
    total = sum(sizes)
    if isinstance(output, Tensor):
        return list(output.split(list(sizes))) if output.dim() and len(output) == total else None
    if isinstance(output, (type(None), bool, int, float, str)):
        return [output] * len(sizes)
    keys: list[Any] = []
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        keys, values = [each.name for each in dataclasses.fields(output)], []
        values = [getattr(output, key) for key in keys]
    elif type(output) is dict:
        keys, values = list(output), list(output.values())
    elif isinstance(output, (tuple, list)):
        values = list(output)
    else:
        return None
    parts = [split_output(value, sizes) for value in values]
    if any(part is None for part in parts):
        return None
    rows = list(zip(*(part for part in parts if part is not None), strict=True))
    try:
        return [_rebuilt(output, keys, row) for row in rows] if rows else None
    except (TypeError, ValueError):  # a class whose constructor takes something else
        return None


def _rebuilt(output: Any, keys: list[Any], values: Sequence[Any]) -> Any:
    """Return `values` in a container of the type of `output`."""
    if type(output) is dict:
        return dict(zip(keys, values, strict=True))
    if keys:
        return type(output)(**dict(zip(keys, values, strict=True)))
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
