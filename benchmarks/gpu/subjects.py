"""The networks and the data that several steps use. All made from seeds: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.networks import build
from luigi_prune.registry import METHODS, MethodRow

Batches = list[tuple[Tensor, Tensor]]
LOSS = F.cross_entropy


def pruning_methods() -> list[MethodRow]:
    """Return the methods that prune, an inexpensive and usual one of each granularity first."""
    first = ("ThresNet", "FilterThresNet", "SVDNet", "SiPPNet", "PFPNet", "ALDSNet")
    rows = [row for row in METHODS.values() if row.granularity != "none"]
    return sorted(rows, key=lambda row: first.index(row.name) if row.name in first else len(first))


def resnet20() -> nn.Module:
    """Return ResNet20 for 32x32 images, with statistics as if it had been trained."""
    return with_statistics(build("resnet20", (3, 32, 32), 10, seed=0))


def conv_net() -> nn.Module:
    """Return three convolutions with BatchNorm and a linear layer, for 32x32 images."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for before, after in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))
    return with_statistics(network)


NETWORKS = {"conv": conv_net, "resnet20": resnet20}


def with_statistics(network: nn.Module) -> nn.Module:
    """Return the network with BatchNorm's parameters and statistics drawn, so that no two filters are alike."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2),
                    (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
                ):  # fmt: skip
                    assert tensor is not None
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return network


def calibration(device: torch.device, samples: int = 64, size: int = 32, batch: int = 4, classes: int = 10) -> Batches:
    """Return noise of shape (batch, 3, size, size) and its classes in batches on `device`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 3, size, size, generator=generator).to(device)
    y = torch.randint(0, classes, (samples,), generator=generator).to(device)
    return list(zip(x.split(batch), y.split(batch), strict=True))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep TF32 out of convolutions and matrix products: it has ten bits where the CPU has 23."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
