"""Equivalents compute the same as the modules that they stand for, and weights and masks convert without loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.pruning.low_rank.decomposed import restore
from luigi_prune.compute.pruning.problem.equivalents import Equivalent, without_equivalents
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.compute.pruning.problem.weight_matrices import in_layers, layer_masks, weight_matrices
from luigi_prune.errors import ConfigError
from tests.compute.pruning.kinds_of_layers import KINDS, Conv1D, Encoder, network_of_kind, noise, seasoned

Q, K, V, NARROW = noise(4, 3, 8), noise(5, 3, 8), noise(5, 3, 8) * 2, noise(5, 3, 4)
PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]).bool()
CAUSAL = nn.Transformer.generate_square_subsequent_mask(4)
PACKED = pack_sequence([noise(2, 4), noise(5, 4), noise(3, 4)], enforce_sorted=False)
Case = tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any]]


def attention(*inputs: Tensor, settings: dict[str, Any] | None = None, **call: Any) -> Case:
    return lambda: nn.MultiheadAttention(8, 2, **(settings or {})), inputs, call


def recurrent(kind: Callable[..., nn.Module], *inputs: Any, **settings: Any) -> Case:
    return lambda: kind(4, 6, **settings), inputs, {}


CASES: dict[str, Case] = {
    "attention": attention(Q, K, V),
    "without weights": attention(Q, K, V, need_weights=False),
    "weights of every head": attention(Q, K, V, average_attn_weights=False),
    "batch first": attention(Q, Q, Q, settings={"batch_first": True}, need_weights=False),
    "unbatched": attention(Q[:, 0], K[:, 0], V[:, 0]),
    "no bias": attention(Q, K, V, settings={"bias": False}),
    "other widths": attention(Q, NARROW, noise(5, 3, 6), settings={"kdim": 4, "vdim": 6}),
    "additional keys": attention(
        Q, K, V, settings={"add_bias_kv": True, "add_zero_attn": True}, attn_mask=noise(4, 5), need_weights=False
    ),
    "boolean masks": attention(Q, K, V, attn_mask=noise(4, 5) > 1.0, key_padding_mask=PADDING, need_weights=False),
    "a mask per head": attention(Q, K, V, attn_mask=noise(6, 4, 5)),
    "causal": attention(Q, Q, Q, attn_mask=CAUSAL, is_causal=True, need_weights=False),
    "encoder-decoder": (lambda: nn.Transformer(8, 2, 1, 1, 16), (Q, K), {}),
    "LSTM": recurrent(nn.LSTM, noise(5, 3, 4), num_layers=2, bidirectional=True),
    "LSTM, packed": recurrent(nn.LSTM, PACKED, (noise(2, 3, 6), noise(2, 3, 6)), bidirectional=True),
    "LSTM, projected": recurrent(nn.LSTM, noise(5, 3, 4), proj_size=3),
    "GRU, unbatched": recurrent(nn.GRU, noise(5, 4), bias=False),
    "GRU, batch first": recurrent(nn.GRU, noise(3, 5, 4), noise(1, 3, 6), batch_first=True),
    "RNN": recurrent(nn.RNN, PACKED, nonlinearity="relu"),
    "LSTM cell": recurrent(nn.LSTMCell, noise(3, 4)),
    "GRU cell": recurrent(nn.GRUCell, noise(4), noise(6)),
    "up": (lambda: nn.ConvTranspose1d(4, 8, 3, 2, 1, output_padding=1, groups=2), (noise(2, 4, 6),), {}),
    "up, to a size": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1), (noise(2, 4, 5, 5), [10, 9]), {}),
    "up, dilated": (lambda: nn.ConvTranspose3d(4, 6, 2, dilation=2, bias=False), (noise(2, 4, 3, 3, 3),), {}),
    "Conv1D": (lambda: nn.Sequential(nn.ReLU(), Conv1D(6, 8)), (Q,), {}),
}


def tensors(output: Any) -> list[Tensor]:
    parts = (
        [output] if isinstance(output, Tensor) else [t for part in output if part is not None for t in tensors(part)]
    )
    return [part.float() for part in parts]


@pytest.mark.parametrize("case", CASES)
def test_an_equivalent_computes_the_same_and_converts_back(case: str) -> None:
    build, inputs, call = CASES[case]
    network = seasoned(build)
    next(network.parameters()).requires_grad_(False)
    masks = {name: torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) > 0.4
             for name, p in network.named_parameters()}  # fmt: skip
    made, converted = in_layers(copy.deepcopy(network), masks)
    assert any(isinstance(module, Equivalent) for module in made.modules())
    assert converted is not None
    assert set(converted) == {name for name, _ in made.named_parameters()}
    assert [(n, w.shape) for n, _, w in weight_matrices(network)] == [(n, w.shape) for n, _, w in weight_matrices(made)]
    for after in (lambda: None, lambda: (apply_masks(network, masks), apply_masks(made, converted))):
        after()
        with torch.no_grad(), evaluating(made):
            for one, other in zip(tensors(network(*inputs, **call)), tensors(made(*inputs, **call)), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    back, returned = without_equivalents(copy.deepcopy(made), converted)
    assert all(torch.equal(returned[name], mask) for name, mask in masks.items())
    assert list(back.state_dict()) == list(network.state_dict())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in back.state_dict().items())
    assert {n: p.requires_grad for n, p in back.named_parameters()} == {
        n: p.requires_grad for n, p in network.named_parameters()
    }
    by_layer = layer_masks(network, masks)
    assert all(
        torch.equal(by_layer[name], converted[f"{name}.weight".lstrip(".")]) for name, _, _ in weight_matrices(made)
    )
    copy.deepcopy(back)(*inputs, **call)


def test_hooks_are_kept_and_a_mask_of_another_shape_is_refused() -> None:
    network, inputs = seasoned(Encoder), noise(6, 5, 6)
    attention = network.get_submodule("encoder.layers.0.self_attn")
    attention.register_forward_hook(lambda module, given, output: (output[0] * 0, output[1]))
    with torch.no_grad(), evaluating(network):
        expected = network(inputs)
        torch.testing.assert_close(in_layers(copy.deepcopy(network))[0](inputs), expected)
    with pytest.raises(ConfigError, match="in_proj_weight' of shape"):
        in_layers(network, {"encoder.layers.1.self_attn.in_proj_weight": torch.ones(2, 2, dtype=torch.bool)})


def test_modules_that_cannot_be_taken_apart_stay() -> None:
    class Own(nn.MultiheadAttention):
        def forward(self, *inputs: Any, **call: Any) -> Any:
            return super().forward(*inputs, **call)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.ConvTranspose1d(4, 4, 1), nn.ConvTranspose1d(4, 4, 1)
            self.other.weight = self.one.weight

    class Vetoed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

        def is_compressible(self, module: nn.Module) -> bool:
            return not isinstance(module, nn.MultiheadAttention)

    for network in (Own(8, 2), Tied(), Vetoed()):
        assert not any(isinstance(module, Equivalent) for module in in_layers(network)[0].modules())
    assert [name for name, _, _ in weight_matrices(Own(8, 2))] == ["out_proj"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_restored_without_a_structure(kind: str) -> None:
    network, _ = network_of_kind(kind)
    assert restore(network, []) is network
    assert not any(isinstance(module, Equivalent) for module in network.modules())
