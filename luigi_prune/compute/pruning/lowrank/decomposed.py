"""Decomposed layers as ordinary modules, and rebuilding them on a fresh network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.lowrank.foldings import factorise, kernels
from luigi_prune.compute.pruning.protocol import Decomposition
from luigi_prune.errors import DamagedResult


class Decomposed(nn.Sequential):
    """An encoding and a decoding in the place of one layer; `choice` says of which rank, groups and folding."""

    def __init__(self, encode: nn.Module, decode: nn.Module, choice: Decomposition) -> None:
        super().__init__()
        self.add_module("encode", encode)
        self.add_module("decode", decode)
        self.choice = choice


def build_decomposed(layer: nn.Module, choice: Decomposition) -> Decomposed:
    """Return modules for `choice` with `layer`'s stride, padding, dilation, device and dtype; weights are not set.

    A linear layer's grouped encoder is a `Linear` whose weight is zero outside the blocks.
    """
    weight, has_bias = layer.get_parameter("weight"), layer.bias is not None
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    inner = choice.rank * choice.groups
    if isinstance(layer, nn.Linear):
        encode: nn.Module = nn.Linear(layer.in_features, inner, bias=False, **kind)
        return Decomposed(encode, nn.Linear(inner, layer.out_features, bias=has_bias, **kind), choice)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
        raise TypeError(f"a {type(layer).__name__} cannot be decomposed")
    size = (layer.kernel_size[0], layer.kernel_size[1])
    encoder, decoder = kernels(size, choice.folding)

    def settings(kernel: tuple[int, int], other: tuple[int, int]) -> dict[str, Any]:
        # An axis of kernel size 1 in both halves belongs to the encoder, so that strides act as early as they can.
        mine = [kernel[axis] > 1 or (other[axis] == 1 and kernel is encoder) for axis in (0, 1)]

        def pick(values: Sequence[int], neutral: int) -> tuple[int, int]:
            first, second = (int(values[axis]) if mine[axis] else neutral for axis in (0, 1))
            return first, second

        padding = layer.padding if isinstance(layer.padding, str) else pick(layer.padding, 0)
        return {
            "stride": pick(layer.stride, 1),
            "padding": padding,
            "dilation": pick(layer.dilation, 1),
            "padding_mode": layer.padding_mode,
        }

    first = nn.Conv2d(
        layer.in_channels, inner, encoder, groups=choice.groups, bias=False, **settings(encoder, decoder), **kind
    )
    second = nn.Conv2d(inner, layer.out_channels, decoder, bias=has_bias, **settings(decoder, encoder), **kind)
    return Decomposed(first, second, choice)


@torch.no_grad()
def decompose(layer: nn.Module, choice: Decomposition) -> Decomposed:
    """Return `layer`, a `Linear` or ungrouped `Conv2d`, approximated at the rank of `choice`."""
    new = build_decomposed(layer, choice)
    weight = layer.get_parameter("weight")
    square = weight if weight.dim() == 4 else weight[:, :, None, None]
    encoder, decoder = factorise(square, choice.rank, choice.groups, choice.folding)
    encode, decode = new.get_submodule("encode"), new.get_submodule("decode")
    if weight.dim() == 2:
        blocks = torch.block_diag(*encoder[:, :, 0, 0].chunk(choice.groups))
        encode.get_parameter("weight").copy_(blocks)
        decode.get_parameter("weight").copy_(decoder[:, :, 0, 0])
    else:
        encode.get_parameter("weight").copy_(encoder)
        decode.get_parameter("weight").copy_(decoder)
    if isinstance(layer.bias, Tensor):
        decode.get_parameter("bias").copy_(layer.bias)
    return new


def structure_of(network: nn.Module) -> list[dict[str, Any]]:
    """Return what `restore` needs: name, rank, groups and folding of every decomposed layer of `network`."""
    return [
        {"layer": name, "rank": m.choice.rank, "groups": m.choice.groups, "folding": m.choice.folding}
        for name, m in network.named_modules()
        if isinstance(m, Decomposed)
    ]


def restore(network: nn.Module, structure: list[dict[str, Any]]) -> nn.Module:
    """Return `network`, freshly built, with the layers named in `structure` replaced; an empty one changes nothing.

    Weights are not set: load the state dict next. Raises DamagedResult where `structure` does not fit the network.
    """
    for entry in structure:
        name = str(entry["layer"])
        parent_name, _, child = name.rpartition(".")
        try:
            layer, parent = network.get_submodule(name), network.get_submodule(parent_name)
            choice = Decomposition(int(entry["rank"]), int(entry["groups"]), int(entry["folding"]))
            new = build_decomposed(layer, choice)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise DamagedResult(f"layer {name!r}", f"the network has no such layer to decompose: {error}") from error
        for alias, module in list(parent._modules.items()):
            if alias == child or module is layer:
                parent._modules[alias] = new
    return network
