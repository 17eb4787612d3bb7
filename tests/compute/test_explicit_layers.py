"""Passes that are written out: for which networks they are, and their gradients against autograd's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import masked_parameters
from luigi_prune.compute.training import explicit_layers
from luigi_prune.compute.training.explicit_layers import BlockLinear, ExplicitLinear, SparseLinear, plain_layers
from tests.compute.digits_training import dropout_net, mlp


def test_passes_are_written_out_only_for_what_is_a_plain_mlp():
    assert plain_layers(mlp(0)) is not None
    assert plain_layers(mlp(0, rank=3)) is not None
    hooked, watched, shared, tapped, whole, backward, replaced = (mlp(0) for _ in range(7))
    hooked[1].register_forward_pre_hook(lambda *_: None)
    whole.register_forward_pre_hook(lambda *_: None)
    backward[1].register_full_backward_pre_hook(lambda *_: None)
    replaced[2].forward = torch.tanh
    watched[1].weight.register_hook(lambda gradient: gradient)
    shared.append(nn.ReLU()).append(shared[5])
    tapped[1].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    others = [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Dropout(), nn.Linear(9, 10)),
        nn.Sequential(nn.Linear(64, 10)),
        nn.utils.parametrizations.weight_norm(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))[1]),
        mlp(0).double(),
        dropout_net(),
    ]
    for network in (hooked, watched, shared, tapped, whole, backward, replaced, *others):
        assert plain_layers(network) is None


def kept(form: str, weight: Tensor) -> Tensor:
    """Return a mask of a weight (10, 20)."""
    mask = torch.zeros_like(weight, dtype=torch.bool)
    if form == "one":
        mask[4, 7] = True
    elif form == "rows":
        mask[[0, 2, 9]] = True
    elif form == "columns":
        mask[:, [1, 19]] = True
    elif form == "block":
        mask[[1, 3], 5:9] = True
    elif form == "scattered":
        mask.view(-1)[::7] = True
    elif form == "third":
        mask.view(-1)[::3] = True
    return mask


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("one", BlockLinear),
        ("rows", BlockLinear),
        ("columns", BlockLinear),
        ("block", BlockLinear),
        ("scattered", SparseLinear),
        ("third", ExplicitLinear),
        ("none", ExplicitLinear),
    ],
)
def test_gradients_are_those_of_autograd(form, kind, bias, monkeypatch):
    """Small integers, so that every sum is exact and inputs of ReLUs are often zero."""
    monkeypatch.setattr(explicit_layers, "_ENTRIES", 1)
    draws = torch.Generator().manual_seed(0)
    sizes = [(20, 20), (20, 10), (10, 3)]
    network = nn.Sequential(nn.Flatten(), *[nn.Linear(*size, bias=bias) for size in sizes])
    network.insert(2, nn.ReLU())
    network.insert(4, nn.ReLU())
    for parameter in network.parameters():
        parameter.data = torch.randint(-1, 2, parameter.shape, generator=draws).float()
    masked = masked_parameters(network, {"3.weight": kept(form, network[3].weight)})
    masked[0].clear_weight()
    layers = explicit_layers.explicit_layers(network, masked, shared := {})
    assert type(layers[1]) is kind
    for size in (1, 6, 1):  # memory for one size of batch is made anew for another
        x, slope = (torch.randint(-2, 3, (size, width), generator=draws).float() for width in (20, 3))
        expected = copy.deepcopy(network)
        for parameter in expected.parameters():
            parameter.grad = None
        outputs = expected(x)
        outputs.backward(slope)
        with torch.no_grad():
            shared.clear()
            value = x
            for layer in layers:
                value = layer.forward(value)
            assert torch.equal(value, outputs)
            gradient = slope.clone()
            for place in (2, 1, 0):
                gradient = layers[place].backward(gradient, to_input=place > 0)
        for layer, other in zip(layers, (expected[1], expected[3], expected[5]), strict=True):
            weight = other.weight.grad
            if isinstance(layer, explicit_layers.KeptLinear):
                assert torch.equal(layer.values.grad, weight.flatten()[layer.places])
            else:
                assert torch.equal(layer.linear.weight.grad, weight)
            assert not bias or torch.equal(layer.linear.bias.grad, other.bias.grad)
