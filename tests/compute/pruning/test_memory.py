"""Pruning again and again holds no more memory than pruning once, and holds little at a time."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.engine import trial
from tests.compute.pruning.test_contract import METHODS, prune_like
from tests.compute.pruning.zoo import trained_like


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


@pytest.mark.parametrize("method", METHODS)
def test_no_tensor_outlives_a_prune(method: str) -> None:
    def prune_twice() -> int:
        for kind in ("convnet", "sequence"):
            network, example = trained_like(kind)
            prune_like(network, method, 0.4, example)
            del network, example
        return live_tensors()

    prune_twice()
    assert prune_twice() == prune_twice()


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
def test_draws_that_are_not_kept_are_the_same_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, example = trained_like("convnet")
    kept = prune_like(network, method, 0.4, example).network.state_dict()
    monkeypatch.setattr(trial, "KEPT_DRAWS", 0)
    again = prune_like(network, method, 0.4, example).network.state_dict()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
