"""What the benchmarks of pruning run: networks with random weights, images of noise, clocks and limits."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.compute.networks import build
from luigi_prune.compute.pruning.low_rank import spectra
from luigi_prune.compute.pruning.problem.weight_matrices import weight_matrices
from luigi_prune.registry import METHODS

Batches = list[tuple[Tensor, Tensor]]
BATCH = 4
IMAGES = {"resnet50": (16, 224), "vit_b_16": (16, 224)}  # number and side of the calibration images
SMALL_IMAGES = (128, 32)  # those of all other networks


def build_network(name: str) -> nn.Module:
    """Return a network with random weights: ours or torchvision's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "vgg16":
            return VGG16()
        if name not in IMAGES:
            return build(name, (3, 32, 32), 10, seed=0)
        import torchvision.models

        network: nn.Module = getattr(torchvision.models, name)(num_classes=10)
        for head in (module for module in network.modules() if isinstance(module, nn.Linear)):
            if not bool(head.weight.any()):  # the head of torchvision's vision transformers
                nn.init.normal_(head.weight, std=0.02)
        return network


class VGG16(nn.Module):
    """VGG16 for 32x32 images: thirteen 3x3 convolutions with BatchNorm and three linear layers of 512 (1409.1556)."""

    WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: max-pooling

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in self.WIDTHS:
            if not width:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True)),
            *(nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Linear(512, 10)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=math.sqrt(2 / (9 * module.out_channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, of shape (samples, 10)."""
        return self.classifier(self.features(x).flatten(1))


def calibration(device: torch.device, name: str, samples: int | None = None) -> Batches:
    """Return images of noise and their classes in batches of 4, as many and as large as the network `name` takes."""
    count, side = IMAGES.get(name, SMALL_IMAGES)
    count = samples or count
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, side, side, generator=generator).to(device)
    y = torch.randint(0, 10, (count,), generator=generator).to(device)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


class Spent(NamedTuple):
    """Wall time and CPU time of all threads, in seconds."""

    clock: float
    processor: float

    def minimum(self, other: Spent) -> Spent:
        """Return the smaller of both wall times and of both CPU times."""
        return Spent(min(self.clock, other.clock), min(self.processor, other.processor))

    def over(self, other: Spent) -> Spent:
        """Return both times as multiples of another's."""
        return Spent(self.clock / other.clock, self.processor / other.processor)


def spent_by(device: torch.device, run: Callable[[], object]) -> Spent:
    """Return the time of `run`, including its pending work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return Spent(time.perf_counter() - clock, time.process_time() - processor)


def minimum_of(device: torch.device, run: Callable[[], object], runs: int) -> Spent:
    """Return the minimum time over several runs."""
    return functools.reduce(Spent.minimum, (spent_by(device, run) for _ in range(max(1, runs))))


def prune(network: nn.Module, method: str, batches: Batches) -> api.Pruned:
    """Return the network pruned to half, with an empty cache of singular values."""
    spectra.clear_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return api.prune(network, method, keep_ratio=0.5, calibration=batches, loss=F.cross_entropy)


class Limit(NamedTuple):
    """The time that a kind of methods cannot undercut, and the times that it should not exceed."""

    spent: Spent
    allowed: Spent


def forward_and_backward(network: nn.Module, batches: Batches) -> None:
    """Run the calibration data through the network and back to its weights."""
    for x, y in batches:
        F.cross_entropy(network(x), y).backward()
        network.zero_grad()


def kind_of(method: str) -> str:
    """Return what limits a method: its passes over data, over weights, or its decompositions."""
    row = METHODS[method]
    return "rank" if row.granularity == "rank" else "data" if row.needs_data else "weights"


def limits(network: nn.Module, batches: Batches, runs: int = 2) -> dict[str, Limit]:
    """Return the limits of all kinds of methods.

    "data": one forward and backward over the calibration samples, allowed three of them. "weights": one pass over all
    weights and a sort; allowed three forwards. "rank": the eigenvalues of each layer's smaller Gram matrix, allowed
    twice.
    """
    device = batches[0][0].device
    weights = [weight.detach().flatten(1) for _, _, weight in weight_matrices(network)]  # attention's projections, too

    def forward() -> None:
        with torch.no_grad():
            for x, _ in batches:
                network(x)

    def pass_and_sort() -> None:
        torch.cat([weight.abs().flatten() for weight in weights]).sort()

    def decompose() -> None:
        for weight in weights:
            torch.linalg.eigh(weight @ weight.T if weight.shape[0] < weight.shape[1] else weight.T @ weight)

    network = network.eval()
    data = minimum_of(device, lambda: forward_and_backward(network, batches), runs)
    once = minimum_of(device, forward, runs)
    sort, eigen = minimum_of(device, pass_and_sort, runs), minimum_of(device, decompose, runs)
    network.train()
    return {
        "data": Limit(data, _times(3, data)),
        "weights": Limit(sort, _times(3, once)),
        "rank": Limit(eigen, _times(2, eigen)),
    }


def _times(number: int, spent: Spent) -> Spent:
    return Spent(number * spent.clock, number * spent.processor)
