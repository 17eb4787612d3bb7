"""Pruning again and again holds no more memory than pruning once, and holds little at a time."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.duplicates import duplicate, share_equal
from luigi_prune.compute.pruning.allocations import sampling_error
from luigi_prune.compute.pruning.engine import trial
from luigi_prune.compute.pruning.low_rank.principal import Moments
from luigi_prune.errors import ConfigError
from tests.compute.pruning.test_contract import METHODS, prune_like
from tests.compute.pruning.zoo import trained_like

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def only_new_objects():
    """Leave what exists already out of `gc.get_objects`, which is then quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(each), Tensor) for each in gc.get_objects())


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("method", "kind"), [(name, ("convnet", "sequence")[place % 2]) for place, name in enumerate(METHODS)]
)
def test_no_tensor_outlives_a_prune(method: str, kind: str) -> None:
    def prune_once() -> int:
        network, example = trained_like(kind)
        prune_like(network, method, 0.4, example)
        del network, example
        return live_tensors()

    prune_once()
    assert prune_once() == prune_once()


class Refuses(nn.Module):
    """Runs, except with the positive inputs of a probe."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if bool((x > 0).all()):
            raise ValueError("only inputs of both signs")
        return self.second(x)


def test_no_tensor_outlives_a_probe_that_fails() -> None:
    def prune_once() -> int:
        assert "cannot be probed" in prune_like(Refuses(), "FilterThresNet", 0.6, torch.randn(4, 8)).warnings[0]
        return live_tensors()

    prune_once()
    assert prune_once() == prune_once()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux counts pages there")
def test_resident_memory_does_not_grow() -> None:
    """A probe that is not released holds more than 100 MB; the allocator keeps up to 20 MB more or less."""
    layers = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())]
    network = nn.Sequential(nn.Conv2d(3, 8, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    sizes = []
    for _ in range(6):
        prune_like(network, "FilterThresNet", 0.5, torch.randn(2, 3, 150, 150), calibration=None)
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[2] < 150 * 2**20


@pytest.mark.parametrize("method", ["EllOneNet", "SiPPNetRand", "SiPPNetHybrid", "PFPNetRand"])
def test_draws_and_sums_that_are_not_kept_are_the_same_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, example = trained_like("convnet")
    kept = prune_like(network, method, 0.4, example).network.state_dict()
    monkeypatch.setattr(trial, "KEPT_DRAWS", 0)
    monkeypatch.setattr(sampling_error, "SORTED", 0)
    again = prune_like(network, method, 0.4, example).network.state_dict()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_parameters_of_one_name_and_value_use_the_same_memory() -> None:
    given = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Conv2d(4, 4, 3))
    network = duplicate(given)
    with torch.no_grad():
        network[1].weight[0, 0] = 9
    network[2].to(memory_format=torch.channels_last)
    share_equal(network, given)
    names = [
        name for name, value in network.named_parameters() if value.data_ptr() == given.get_parameter(name).data_ptr()
    ]
    assert names == ["0.weight", "0.bias", "1.bias", "2.bias"]


@pytest.mark.parametrize(("features", "count"), [(300, 40), (300, 700), (6, 4), (6, 50)])
def test_outputs_that_are_kept_and_outputs_that_are_summed_have_their_covariance(features: int, count: int) -> None:
    outputs = 5 + torch.randn(count, features, generator=torch.Generator().manual_seed(0))
    moments = Moments("layer", outputs[:10])
    for some in outputs.split(10):
        moments.add(some)
    expected = outputs.double()
    torch.testing.assert_close(moments.mean, expected.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moments.covariance().tril(), expected.T.cov().tril(), rtol=1e-4, atol=1e-5)
    moments.add(torch.full((1, features), torch.nan))
    with pytest.raises(ConfigError, match="layer 'layer' computes NaN or infinite outputs"):
        moments.covariance()
