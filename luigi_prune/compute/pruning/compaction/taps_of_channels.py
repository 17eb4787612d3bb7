"""The modules whose channels can be removed, and the parameters that go with a channel of each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from luigi_prune.compute.pruning.problem.layers import groups_of
from luigi_prune.compute.pruning.structure.channel_hooks import axes_of, is_reader

INPUT, OUTPUT = "input", "output"
SIDES = (INPUT, OUTPUT)
_PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def is_tap(module: nn.Module) -> bool:
    """Return whether `module` has channels of its own: it mixes them (layers), or treats each by itself (norms)."""
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    return is_reader(module) or isinstance(module, (_NormBase, nn.GroupNorm)) or _is_prelu(module)


def _is_prelu(module: nn.Module) -> bool:
    return isinstance(module, nn.PReLU) and module.num_parameters > 1


def is_depthwise(module: nn.Module) -> bool:
    """Return whether a convolution has one filter per channel, which it alone reads."""
    return is_reader(module) and 1 < groups_of(module) == width(module, INPUT) == width(module, OUTPUT)


def passes_channels(module: nn.Module) -> bool:
    """Return whether channel c of the output depends on channel c of the input, and has its place."""
    return not is_reader(module) or is_depthwise(module)


def why_fixed(module: nn.Module) -> str:
    """Return why no channel of `module` can be removed alone; "" if it can."""
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        return f"a {type(module).__name__} normalises them together with others"
    if is_reader(module) and groups_of(module) > 1 and not is_depthwise(module):
        return "a grouped convolution needs equally many in every group"
    return ""


def width(module: nn.Module, side: str) -> int:
    """Return the number of input or output channels of a tap."""
    weight = module._parameters.get("weight")
    if is_reader(module) and weight is not None:
        return weight.shape[0] if side == OUTPUT else weight.shape[1] * groups_of(module)
    for name in ("num_features", "num_channels", "num_parameters"):
        if isinstance(size := getattr(module, name, None), int):
            return size
    assert isinstance(module, nn.LayerNorm)
    return module.normalized_shape[0]


def channel_axis(module: nn.Module, value: Tensor) -> int:
    """Return the axis of `value`, an input or output of a tap, that runs over channels."""
    if isinstance(module, (nn.PReLU, nn.GroupNorm)):
        return 1
    return axes_of(module, value)[0]


def entries(module: nn.Module, side: str) -> Iterator[tuple[str, int]]:
    """Yield (name, axis) of the parameters and buffers of a tap that run over its channels of this side."""
    if not passes_channels(module):
        yield "weight", 0 if side == OUTPUT else 1
        if side == OUTPUT and isinstance(module.bias, Tensor):
            yield "bias", 0
    elif side == OUTPUT:  # input and output channels are the same
        for name in _PER_CHANNEL:
            if isinstance(getattr(module, name, None), Tensor):
                yield name, 0


def resize(module: nn.Module, inputs: int, outputs: int) -> None:
    """Set the attributes of a tap that hold its numbers of channels."""
    for names, size in (
        (("in_channels", "in_features", "nx"), inputs),
        (("out_channels", "out_features", "nf", "num_features", "num_parameters"), outputs),
    ):
        for name in names:
            if name in vars(module):
                setattr(module, name, size)
    if groups_of(module) != 1 and "groups" in vars(module):
        vars(module)["groups"] = outputs


def uniform(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random numbers between 0.5 and 1.5, of the type and on the device of `like`."""
    return torch.rand(shape, generator=generator).add_(0.5).to(like)
