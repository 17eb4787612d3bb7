"""Decomposed layers as ordinary modules, and rebuilding them on a fresh network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.low_rank.factors import Basis, factorise
from luigi_prune.compute.pruning.low_rank.foldings import kernels, recompose
from luigi_prune.compute.pruning.problem.layers import compressible_modules
from luigi_prune.compute.pruning.problem.module_references import replace_module
from luigi_prune.compute.pruning.problem.records import Decomposition
from luigi_prune.compute.pruning.problem.weight_matrices import with_layers
from luigi_prune.errors import DamagedResult

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_WITHOUT_DRAWS = {
    kind.__name__: type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})
    for kind in (nn.Linear, *CONVOLUTIONS)
}


@dataclass(frozen=True)
class DecompositionError:
    """The errors of a decomposition, relative to the operator norm of the layer that it replaces.

    `operator`: the operator norm of the difference of the folded matrices. `estimate`: the largest dropped singular
    value of a chunk, which ALDS minimises; None if there are no chunks (MESSI).
    """

    estimate: float | None
    operator: float


class Decomposed(nn.Sequential):
    """An encoding and a decoding that replace one layer; `choice` is their rank, groups and folding.

    `adds_bias`: the decoding has a bias, but the layer had none. `weight` and `bias` are those of the equivalent single
    layer, for modules that read them instead of calling the layer (attention's fused path does). `error`: the error of
    the decomposition when it was built; None if outputs, not weights, were approximated (PCA).
    """

    def __init__(self, encode: nn.Module, decode: nn.Module, choice: Decomposition, adds_bias: bool = False) -> None:
        super().__init__()
        self.add_module("encode", encode)
        self.add_module("decode", decode)
        self.choice, self.adds_bias = choice, adds_bias
        self.error: DecompositionError | None = None

    @property
    def weight(self) -> Tensor:
        encoder, decoder = (self.get_submodule(name).get_parameter("weight") for name in ("encode", "decode"))
        if encoder.dim() == 2:
            return decoder @ encoder
        weight = recompose(four_axes(encoder), four_axes(decoder), self.choice.groups)
        return weight.squeeze(3) if encoder.dim() == 3 else weight

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the replaced layer's weight."""
        encode, decode = self.get_submodule("encode"), self.get_submodule("decode")
        if not isinstance(encode, CONVOLUTIONS) or not isinstance(decode, CONVOLUTIONS):
            return decode.get_parameter("weight").shape[0], encode.get_parameter("weight").shape[1]
        size = (a * b for a, b in zip(encode.kernel_size, decode.kernel_size, strict=True))
        return decode.out_channels, encode.in_channels, *size

    @property
    def bias(self) -> Tensor | None:
        bias = self.get_submodule("decode").bias
        return bias if isinstance(bias, Tensor) else None


def build_decomposed(layer: nn.Module, choice: Decomposition, *, add_bias: bool = False) -> Decomposed:
    """Return modules for `choice` with `layer`'s stride, padding, dilation, device and dtype; weights are not set.

    A linear layer's grouped encoder is a `Linear` whose weight is zero outside the blocks. `add_bias`: the decoding
    has a bias even if `layer` has none.
    """
    weight, adds_bias = layer.get_parameter("weight"), add_bias and layer.bias is None
    has_bias = adds_bias or layer.bias is not None
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    inner = choice.rank * choice.groups
    if isinstance(layer, nn.Linear):
        encode: nn.Module = _empty_module(nn.Linear, layer.in_features, inner, bias=False, **kind)
        decode = _empty_module(nn.Linear, inner, layer.out_features, bias=has_bias, **kind)
        return Decomposed(encode, decode, choice, adds_bias)
    if not isinstance(layer, CONVOLUTIONS) or layer.groups != 1:
        raise TypeError(f"a {type(layer).__name__} cannot be decomposed")
    axes = range(len(layer.kernel_size))
    size = (layer.kernel_size[0], 1 if isinstance(layer, nn.Conv1d) else layer.kernel_size[1])
    encoder, decoder = (kernel[: len(axes)] for kernel in kernels(size, choice.folding))
    of_encoder = [encoder[axis] > 1 or decoder[axis] == 1 for axis in axes]

    def settings(*, encodes: bool) -> dict[str, Any]:
        # An axis with kernel size 1 in both is the encoder's, so that strides apply as early as possible.
        def pick(values: Sequence[int], neutral: int) -> tuple[int, ...]:
            return tuple(int(values[axis]) if of_encoder[axis] == encodes else neutral for axis in axes)

        padding = layer.padding if isinstance(layer.padding, str) else pick(layer.padding, 0)
        return {
            "stride": pick(layer.stride, 1),
            "padding": padding,
            "dilation": pick(layer.dilation, 1),
            "padding_mode": layer.padding_mode,
        }

    convolution = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
    first = _empty_module(
        convolution, layer.in_channels, inner, encoder,
        groups=choice.groups, bias=False, **settings(encodes=True), **kind,
    )  # fmt: skip
    second = _empty_module(
        convolution, inner, layer.out_channels, decoder, bias=has_bias, **settings(encodes=False), **kind
    )
    return Decomposed(first, second, choice, adds_bias)


def _empty_module(kind: type[nn.Module], *args: Any, **settings: Any) -> nn.Module:
    """Return a module whose parameters are not set: drawing them takes longer than making the module."""
    module: nn.Module = _WITHOUT_DRAWS[kind.__name__](*args, **settings)
    module.__class__ = kind
    return module


@torch.no_grad()
def decompose(
    layer: nn.Module, choice: Decomposition, bases: Mapping[tuple[int, int], Basis | None] | None = None
) -> Decomposed:
    """Return `layer`, a `Linear` or ungrouped `Conv1d` or `Conv2d`, approximated at the rank of `choice`.

    `bases`: those already computed, by (folding, groups).
    """
    basis = (bases or {}).get((choice.folding, choice.groups))
    encoder, decoder = factorise(square(layer), choice.rank, choice.groups, choice.folding, basis)
    if isinstance(layer, nn.Linear):
        encoder = torch.block_diag(*encoder[:, :, 0, 0].chunk(choice.groups))[:, :, None, None]
    return assemble(layer, choice, encoder, decoder, layer.bias if isinstance(layer.bias, Tensor) else None)


def square(layer: nn.Module) -> Tensor:
    """Return the weight of a layer as (f, c, k1, k2)."""
    return four_axes(layer.get_parameter("weight").detach())


def four_axes(weight: Tensor) -> Tensor:
    """Return the weight of a linear layer or of a convolution along one axis as that of a convolution along two."""
    return weight.reshape(*weight.shape, *[1] * (4 - weight.dim()))


@torch.no_grad()
def assemble(
    layer: nn.Module, choice: Decomposition, encoder: Tensor, decoder: Tensor, bias: Tensor | None
) -> Decomposed:
    """Return the decomposition of `layer` with these weights, each with four axes, and this bias."""
    new = build_decomposed(layer, choice, add_bias=bias is not None)
    for name, value in (("encode", encoder), ("decode", decoder)):
        part = new.get_submodule(name)
        empty = part.get_parameter("weight")
        part.register_parameter("weight", nn.Parameter(value.to(empty).reshape(empty.shape).contiguous()))
    if bias is not None:
        new.get_submodule("decode").get_parameter("bias").copy_(bias)
    requires_grad = [layer.get_parameter("weight").requires_grad, getattr(layer.bias, "requires_grad", True)]
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(requires_grad[name.endswith("bias")])
    return new.train(layer.training)


@torch.no_grad()
def recompose_layer(decomposed: Decomposed) -> nn.Module:
    """Return one layer that computes the same as `decomposed`."""
    encode, decode = decomposed.get_submodule("encode"), decomposed.get_submodule("decode")
    weight, bias = decomposed.weight, decomposed.bias
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype, "bias": bias is not None}
    layer: nn.Module
    if isinstance(encode, nn.Linear):
        layer = nn.Linear(weight.shape[1], weight.shape[0], **kind)
    else:
        assert isinstance(encode, CONVOLUTIONS)
        assert isinstance(decode, CONVOLUTIONS)
        settings, size = _merged_settings(encode, decode), tuple(weight.shape[2:])
        convolution: Any = nn.Conv1d if isinstance(encode, nn.Conv1d) else nn.Conv2d
        layer = convolution(weight.shape[1], weight.shape[0], size, **settings, **kind)
    layer.get_parameter("weight").copy_(weight)
    if bias is not None:
        layer.get_parameter("bias").copy_(bias)
    layer.requires_grad_(encode.get_parameter("weight").requires_grad)
    if bias is not None:
        layer.get_parameter("bias").requires_grad_(bias.requires_grad)
    return layer.train(decomposed.training)


def _merged_settings(encode: nn.Conv1d | nn.Conv2d, decode: nn.Conv1d | nn.Conv2d) -> dict[str, Any]:
    """Return the settings of the convolution that was split in two: each axis is neutral in one of them."""

    def both(first: Sequence[int], second: Sequence[int], neutral: int) -> tuple[int, ...]:
        return tuple(a if a != neutral else b for a, b in zip(first, second, strict=True))

    padding: Any = encode.padding
    if not isinstance(padding, str):
        padding = both(padding, [int(p) for p in decode.padding], 0)
    return {
        "stride": both(encode.stride, decode.stride, 1),
        "padding": padding,
        "dilation": both(encode.dilation, decode.dilation, 1),
        "padding_mode": encode.padding_mode,
    }


def current_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the compressible and the decomposed layers, in the order of `modules()`.

    Order and names are the same as before any layer was decomposed.
    """
    plain = {id(module) for _, module in compressible_modules(network)}
    inside = {id(part) for module in network.modules() if isinstance(module, Decomposed) for part in module}
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, Decomposed) or (id(module) in plain and id(module) not in inside)
    ]


def structure_of(network: nn.Module) -> list[dict[str, Any]]:
    """Return name, rank, groups and folding of every decomposed layer of `network`, from which `restore` rebuilds it.

    Also whether its bias was added, and its `DecompositionError`.
    """
    return [
        {"layer": name, "rank": m.choice.rank, "groups": m.choice.groups, "folding": m.choice.folding}
        | ({"bias": True} if m.adds_bias else {})
        | ({"error_estimate": m.error.estimate, "error_operator": m.error.operator} if m.error else {})
        for name, m in network.named_modules()
        if isinstance(m, Decomposed)
    ]


def restore(network: nn.Module, structure: list[dict[str, Any]]) -> nn.Module:
    """Return `network`, freshly built, with the layers named in `structure` replaced; an empty list changes nothing.

    Weights are not set: load the state dict next. Raises DamagedResult if `structure` does not fit the network.
    """
    layers = [str(entry["layer"]) for entry in structure]
    network = with_layers(network, layers)
    for name, entry in zip(layers, structure, strict=True):
        try:
            layer = network.get_submodule(name)
            choice = Decomposition(int(entry["rank"]), int(entry["groups"]), int(entry["folding"]))
            new = build_decomposed(layer, choice, add_bias=bool(entry.get("bias", False))).train(layer.training)
            if "error_operator" in entry:
                new.error = DecompositionError(entry["error_estimate"], float(entry["error_operator"]))
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise DamagedResult(f"layer {name!r}", f"the network has no such layer to decompose: {error}") from error
        network = replace_module(network, layer, new)
    return network
