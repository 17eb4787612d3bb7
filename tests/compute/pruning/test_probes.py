"""Searches may look at smaller images, and end at the same network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.structure.probes import Probes
from tests.compute.pruning.test_contract import prune_like


def convolutions(*end: nn.Module) -> nn.Sequential:
    """Return convolutions from 3 to 8 channels at a quarter of the resolution, and `end`."""
    first, second = nn.Conv2d(3, 8, 5, stride=4), nn.Conv2d(8, 8, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(8), nn.ReLU(), *end)


class Gate(nn.Module):
    """Reads its input on large images only."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[-1] > 20 else torch.ones_like(x)


@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "FilterUniNet", "PFPNet"])
def test_smaller_images_find_the_same_network(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = convolutions(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    with torch.no_grad():
        network[1].bias.normal_()  # type: ignore[union-attr, operator]
    x = torch.randn(2, 3, 130, 129)
    assert Probes(network, x).smaller[1].shape == (2, 3, 65, 65)
    found = prune_like(network, method, 0.5, x)
    monkeypatch.setattr(Probes, "smaller", property(lambda probes: probes.exact))
    expected = prune_like(network, method, 0.5, x)
    assert found.size == expected.size < sum(parameter.numel() for parameter in network.parameters())
    one, other = found.network.state_dict(), expected.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("end", "side"),
    [
        ((nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)), 95),
        ((nn.Flatten(), nn.Linear(8 * 32 * 32, 10)), 131),
        ((Gate(), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)), 131),
    ],
    ids=["small already", "of a fixed size", "another structure"],
)
def test_images_that_cannot_be_smaller_stay(end: tuple[nn.Module, ...], side: int) -> None:
    probes = Probes(convolutions(*end).eval().requires_grad_(False), torch.randn(2, 3, side, side))
    assert probes.smaller is probes.exact
