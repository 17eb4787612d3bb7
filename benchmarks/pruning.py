"""The speed of every method relative to torchprune: seconds of `api.prune` at keep ratio 0.5, in a common unit.

python benchmarks/pruning.py [--methods SiPPNet,WT] [--networks resnet20,vgg16] [--threads 1] [--repeat 3]

Random weights, CIFAR shapes, 128 calibration images of 3x32x32 in batches of 4, two threads. Machines differ, so the
reference's seconds are scaled by those of ResNet20's plain forward and backward over the 128 images, measured again
before every method. Figures are minima over the repetitions, of wall time and of CPU time. On a busy machine CPU time
is more reliable, especially with --threads 1.
The goal: at least 20 times (low-rank methods: 10 times) faster in the geometric mean over the methods that take the
reference more than half a second, and none slower than the larger of the reference and 0.3 s. docs/speed.md has the
results of one run.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
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
from luigi_prune.registry import METHODS, find

# Seconds of torchprune (github.com/lucaslie/torchprune, torch 2.15, two threads, one run each) to construct a method
# and prune once to 0.5, by method: (ResNet20, VGG16); 120 means "stopped after 120 s". On that machine
# ResNet20's forward and backward over the 128 images took 0.43 s. FilterUniNet fails there; methods that prune nothing
# are omitted.
REFERENCE_UNIT = 0.43
REFERENCE: dict[str, tuple[float, float]] = {
    "ThresNet": (1.49, 13.88),
    "SnipNet": (11.87, 43.12),
    "UniNet": (1.84, 32.37),
    "EllOneNet": (7.10, 120),
    "EllTwoNet": (98.92, 120),
    "EllOneAndTwoNet": (7.23, 120),
    "SiPPNet": (17.65, 97.20),
    "SiPPNetHybrid": (18.16, 120),
    "SiPPNetRand": (21.19, 120),
    "FilterThresNet": (4.72, 9.37),
    "SoftNet": (2.75, 10.18),
    "ThiNet": (3.95, 14.31),
    "PFPNet": (12.81, 84.11),
    "PFPNetRand": (14.65, 91.71),
    "PFPNetTop": (12.49, 113.25),
    "SVDNet": (0.50, 2.40),
    "SVDNuclearNet": (0.08, 5.62),
    "SVDFrobeniusNet": (0.07, 3.57),
    "SVDErrorNet": (0.07, 5.31),
    "LearnedRankNet": (0.10, 4.89),
    "LearnedRankNetScheme0": (0.08, 3.28),
    "PCANet": (0.35, 1.51),
    "ALDSNet": (1.05, 25.07),
    "ALDSNetPlus": (4.45, 120),
    "ALDSNetOne": (1.06, 21.40),
    "ALDSNetOptK": (0.61, 22.24),
    "ALDSNetErrorOnly": (0.14, 4.27),
    "ALDSNetSimple": (0.32, 2.04),
    "ALDSNetSimple5": (0.33, 2.23),
    "MessiNet": (8.19, 120),
    "MessiNet5": (9.18, 120),
}
NETWORKS = ("resnet20", "vgg16")
CUTOFF = 120.0
WORTH_COUNTING = 0.5  # seconds of the reference
NEVER_SLOWER_THAN = 0.3  # seconds, on the reference's machine

Batches = list[tuple[Tensor, Tensor]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="names or short names, separated by commas (default: all that prune)")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each method; the minimum is shown")
    parser.add_argument("--threads", type=int, default=2, help="use 1 if other processes keep the cores busy")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    pruning = [name for name, row in METHODS.items() if row.granularity != "none"]
    names = arguments.methods.split(",") if arguments.methods else pruning
    methods = [find("method", name).name for name in names]
    batches = calibration(device)
    warm_up(device, batches)
    unit, timings = unit_of(device, batches), []
    for name in arguments.networks.split(","):
        network = build_network(name).to(device)
        for method in methods:
            unit = unit.minimum(unit_of(device, batches, runs=1))
            timings.append(timed(network, name, method, batches, arguments.repeat))
            print(f"  {name} {method}: {timings[-1].spent.clock:.3f} s", flush=True)
    print(
        f"\nunit (ResNet20, forward and backward over 128 images): {unit.clock:.3f} s, CPU {unit.processor:.3f} s here;"
    )
    print(f"{REFERENCE_UNIT} s on the reference's machine")
    for title, low_rank, goal in (("weights, filters and channels", False, 20), ("low rank", True, 10)):
        group = [timing for timing in timings if (METHODS[timing.method].granularity == "rank") == low_rank]
        if group:
            report(title, group, unit, goal)


def build_network(name: str) -> nn.Module:
    """Return a network for 32x32 images with random weights."""
    if name != "vgg16":
        return build(name, (3, 32, 32), 10, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VGG16()


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


def calibration(device: torch.device) -> Batches:
    """Return 128 images of noise and their classes in batches of 4."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 3, 32, 32, generator=generator).to(device)
    y = torch.randint(0, 10, (128,), generator=generator).to(device)
    return list(zip(x.split(4), y.split(4), strict=True))


class Spent(NamedTuple):
    """Wall time and CPU time of all threads, in seconds."""

    clock: float
    processor: float

    def minimum(self, other: Spent) -> Spent:
        """Return the smaller of both wall times and of both CPU times."""
        return Spent(min(self.clock, other.clock), min(self.processor, other.processor))


class Timing(NamedTuple):
    """The time of a method on a network, and the keep ratio that it achieves."""

    network: str
    method: str
    spent: Spent
    kept: float

    @property
    def reference(self) -> float | None:
        """The reference's seconds on its machine."""
        measured = self.method in REFERENCE and self.network in NETWORKS
        return REFERENCE[self.method][NETWORKS.index(self.network)] if measured else None


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


def unit_of(device: torch.device, batches: Batches, runs: int = 4) -> Spent:
    """Return the minimum time of ResNet20's plain forward and backward over the calibration set."""
    network = build("resnet20", (3, 32, 32), 10, seed=0).to(device)

    def once() -> None:
        for x, y in batches:
            F.cross_entropy(network(x), y).backward()

    return minimum_of(device, once, runs)


def warm_up(device: torch.device, batches: Batches) -> None:
    """Run one method of each kind, so that lazy initialisation is not counted for the first method."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(3136, 2)).to(
        device
    )
    for method in ("ThresNet", "FilterThresNet", "SiPPNet"):
        prune(network, method, [(x, y % 2) for x, y in batches[:1]])


def prune(network: nn.Module, method: str, batches: Batches) -> api.Pruned:
    """Return the network pruned to half, with an empty cache of singular values."""
    spectra.clear_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return api.prune(network, method, keep_ratio=0.5, calibration=batches, loss=F.cross_entropy)


def timed(network: nn.Module, name: str, method: str, batches: Batches, repeat: int) -> Timing:
    """Return the minimum time of pruning, and the achieved ratio."""
    ratios: list[float] = []
    spent = minimum_of(batches[0][0].device, lambda: ratios.append(prune(network, method, batches).keep_ratio), repeat)
    return Timing(name, method, spent, ratios[0])


def report(title: str, timings: list[Timing], unit: Spent, goal: int) -> None:
    """Print a table in Markdown and whether the goal is met."""
    print(f"\n{title}\n")
    print("| network | method | reference s, scaled to here | s | times faster | CPU s | times faster | kept |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    gains, slow = [], []
    for timing in timings:
        reference, spent = timing.reference, timing.spent
        row = f"| {timing.network} | {timing.method} |"
        if reference is None:
            print(f"{row} | {spent.clock:.3f} | | {spent.processor:.3f} | | {timing.kept:.4f} |")
            continue
        scaled = Spent(*(reference / REFERENCE_UNIT * seconds for seconds in unit))
        gain = Spent(scaled.clock / spent.clock, scaled.processor / spent.processor)
        more = "> " if reference >= CUTOFF else ""
        print(
            f"{row} {more}{scaled.clock:.2f} | {spent.clock:.3f} | {more}{gain.clock:.1f} "
            f"| {spent.processor:.3f} | {more}{gain.processor:.1f} | {timing.kept:.4f} |"
        )
        if reference > WORTH_COUNTING:
            gains.append(gain)
        equivalent, allowed = spent.clock / unit.clock * REFERENCE_UNIT, max(reference, NEVER_SLOWER_THAN)
        if equivalent > allowed:
            slow.append(
                f"{timing.network} {timing.method} ({equivalent:.2f} s on that machine, allowed {allowed:.2f} s)"
            )
    if gains:
        clock, processor = (statistics.geometric_mean(part) for part in zip(*gains, strict=True))
        print(f"\ngeometric mean over {len(gains)} that take the reference more than {WORTH_COUNTING} s:", end=" ")
        print(f"{clock:.1f} times faster by wall time, {processor:.1f} by CPU time (goal: {goal})")
    print(f"slower than max(reference, {NEVER_SLOWER_THAN} s): {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
