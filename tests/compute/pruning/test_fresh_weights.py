"""The controls: weights drawn anew at the places that pruning keeps, and places drawn at random."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from luigi_prune import api
from luigi_prune.compute.pruning.engine.pruning_result import CONSTANT, REDRAWN, UNTRAINED
from luigi_prune.errors import ConfigError
from luigi_prune.registry import METHODS


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 4))


INPUT = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("control", "method"), [("ScratchNet", "ThresNet"), ("ScratchFilterNet", "FilterThresNet")])
def test_scratch_keeps_the_places_and_draws_the_weights(control: str, method: str) -> None:
    base = network()
    base[1].running_mean += 1
    kept = api.prune(base, method, 0.5, example_input=INPUT)
    fresh, again, other = (api.prune(base, control, 0.5, example_input=INPUT, seed=seed) for seed in (0, 0, 1))
    assert fresh.masks.keys() == kept.masks.keys()
    assert all(torch.equal(fresh.masks[name], mask) for name, mask in kept.masks.items())
    states = [pruned.network.state_dict() for pruned in (fresh, again, other, kept)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for weight, mask in fresh.masks.items():
        assert not states[0][weight][~mask].any()
    for weight in ("0.weight", "5.weight"):
        assert not torch.equal(states[0][weight], states[2][weight])
        assert not torch.equal(states[0][weight], states[3][weight])
    assert not states[0]["1.running_mean"].any()
    assert base[1].running_mean.any()  # the given network is unchanged


def test_shuffled_keeps_as_many_per_layer_at_other_places() -> None:
    kept, shuffled = (api.prune(network(), name, 0.5, example_input=INPUT) for name in ("ThresNet", "ShuffledNet"))
    for name in ("0.weight", "5.weight", "7.weight"):
        mine, theirs = shuffled.masks[name], kept.masks[name]
        assert abs(int(mine.sum()) - int(theirs.sum())) <= 0.03 * mine.numel()
        assert not torch.equal(mine, theirs)
    further = api.prune(shuffled, "ShuffledNet", 0.25, example_input=INPUT)
    for name, mask in further.masks.items():
        assert not (mask & ~shuffled.masks.get(name, torch.ones_like(mask))).any()  # a cascade only removes


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda base: base.insert(2, Scaled()), r"2 \(Scaled\) has parameters, but no reset_parameters to draw them"),
        (lambda base: nn.utils.weight_norm(base[0]), "no reset_parameters of the network draws '0.weight_g' anew"),
        (lambda base: nn.utils.spectral_norm(base[5]), "no reset_parameters of the network draws '5.weight_orig' anew"),
    ],
)
def test_parameters_that_cannot_be_drawn_anew_are_refused_by_name(spoil: Any, text: str) -> None:
    base = network()
    spoil(base)
    with pytest.raises(ConfigError, match=f"ScratchNet: {text}"):
        api.prune(base, "ScratchNet", 0.5, example_input=INPUT)


def test_replaced_layers_cannot_be_drawn_anew() -> None:
    decomposed = api.prune(network(), "SVDNet", 0.5, example_input=INPUT)
    with pytest.raises(ConfigError, match="ScratchNet: weights of replaced layers cannot be drawn anew"):
        api.prune(decomposed, "ScratchNet", 0.25, example_input=INPUT)


def deep(biased: bool = True) -> nn.Sequential:
    """Return a network of 24 layers, whose output depends on its input, but does not with weights of torch's default.

    There it is that of the biases: every layer shrinks differences, and the last one's come to nothing.
    """
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8, bias=biased) for _ in range(24)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight)
    return nn.Sequential(*layers)


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(4 * x)


@pytest.mark.parametrize("method", ["ThresNet", "ScratchNet"])
def test_warnings_are_of_the_network_with_fresh_weights(method: str) -> None:
    def pruned(base: nn.Module, ratio: float) -> api.Pruned:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return api.prune(base, method, ratio, example_input=torch.randn(4, 8))

    drawn = METHODS[method].reinitialised
    for ratio in (0.9, 1.0):
        result = pruned(deep(), ratio)
        assert any(UNTRAINED in text for text in result.warnings) == drawn
        assert not drawn or result.network(10 * torch.randn(4, 8)).std(0).max() < 1e-4
    # differences are all that there is without biases
    assert not any(REDRAWN in text for text in pruned(deep(biased=False), 0.9).warnings)
    # a network that is constant when it is given is not with fresh weights
    torch.manual_seed(0)
    zero = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(zero[2].weight)
    assert not any(CONSTANT in text or REDRAWN in text for text in pruned(zero, 0.7).warnings)
    # nor is one whose old weights are too small, once it is pruned, to reach the next whole number
    torch.manual_seed(0)
    rounded = nn.Sequential(nn.Linear(8, 8), Rounded(), nn.Linear(8, 8), Rounded(), nn.Linear(8, 8))
    with torch.no_grad():
        for place, channel in ((2, 0), (4, 1)):
            rounded[place].weight *= 1e-4
            rounded[place].weight[0, channel] = 1
    assert any(CONSTANT in text or REDRAWN in text for text in pruned(rounded, 0.15).warnings) != drawn
