"""The controls: weights drawn anew at the places that pruning keeps, and places drawn at random."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luigi_prune import api
from luigi_prune.errors import ConfigError


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


def test_a_module_that_cannot_be_drawn_anew_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    base = network()
    base[2] = Scaled()
    with pytest.raises(ConfigError, match=r"ScratchNet: 2 \(Scaled\) has parameters, but no reset_parameters"):
        api.prune(base, "ScratchNet", 0.5, example_input=INPUT)
