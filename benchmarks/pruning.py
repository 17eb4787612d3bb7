"""How fast every method prunes, beside torchprune: seconds of `api.prune` at keep ratio 0.5, in a common unit.

python benchmarks/pruning.py [--methods SiPPNet,WT] [--networks resnet20,vgg16] [--threads 1] [--repeat 3]

Random weights, CIFAR shapes, 128 calibration images of 3x32x32 in batches of 4, two threads. Machines differ, so
seconds are divided by those of ResNet20's plain forward and backward over the 128 images, measured in the same run (the
median of what is measured at the beginning and after each network). The goal: at least 20 times faster in the geometric
mean over the methods that take the reference more than half a second, and none slower than the larger of the reference
and 0.3 s.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.catalogue import METHODS, find
from luigi_prune.compute.networks import build

# Seconds of torchprune (github.com/lucaslie/torchprune, torch 2.15, two threads, one run each) to construct a method
# and prune once to 0.5, by method: (ResNet20, VGG16); 120 stands for "more than 120, stopped there". On that machine
# ResNet20's forward and backward over the 128 images took 0.43 s. FilterUniNet fails there; methods that prune nothing
# are left out.
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
    parser.add_argument("--methods", help="names or short names, with commas between (all that prune)")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the median is shown")
    parser.add_argument(
        "--threads", type=int, default=2, help="1 on a machine whose cores are busy: two would wait for each other"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    names = (
        given.methods.split(",") if given.methods else [n for n, row in METHODS.items() if row.granularity != "none"]
    )
    methods = [find("method", name).name for name in names]
    batches = calibration(device)
    warm_up(device, batches)
    units, timings = [unit_seconds(device, batches)], []
    for name in given.networks.split(","):
        network = build_network(name).to(device)
        for method in methods:
            timings.append((name, method, *timed(network, method, batches, given.repeat)))
            print(f"  {name} {method}: {timings[-1][2]:.3f} s", flush=True)
        units.append(unit_seconds(device, batches))
    report(timings, statistics.median(units))


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


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """Return how long `run` takes, with what it left to do on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def unit_seconds(device: torch.device, batches: Batches) -> float:
    """Return the seconds of ResNet20's plain forward and backward over the calibration set: the median of three."""
    network = build("resnet20", (3, 32, 32), 10, seed=0).to(device)

    def once() -> None:
        for x, y in batches:
            F.cross_entropy(network(x), y).backward()

    once()
    return statistics.median(seconds(device, once) for _ in range(3))


def warm_up(device: torch.device, batches: Batches) -> None:
    """Load what the first use of each kind loads, so that it is not charged to the first method."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(3136, 2)).to(
        device
    )
    for method in ("ThresNet", "FilterThresNet", "SiPPNet"):
        prune(network, method, [(x, y % 2) for x, y in batches[:1]])


def prune(network: nn.Module, method: str, batches: Batches) -> api.Pruned:
    """Return the network pruned to half."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return api.prune(network, method, keep_ratio=0.5, calibration=batches, loss=F.cross_entropy)


def timed(network: nn.Module, method: str, batches: Batches, repeat: int) -> tuple[float, float]:
    """Return the median seconds of pruning, and the achieved ratio."""
    device = batches[0][0].device
    kept: list[float] = []
    taken = [
        seconds(device, lambda: kept.append(prune(network, method, batches).keep_ratio)) for _ in range(max(1, repeat))
    ]
    return statistics.median(taken), kept[0]


def report(timings: list[tuple[str, str, float, float]], unit: float) -> None:
    """Print a table in Markdown and the verdict on the goal."""
    print(f"\nunit (ResNet20, forward and backward over 128 images): {unit:.3f} s here, {REFERENCE_UNIT} s there\n")
    print("| network | method | s | units | reference, units | times faster | kept |")
    print("|---|---|---:|---:|---:|---:|---:|")
    gains, slow = [], []
    for name, method, taken, kept in timings:
        theirs = REFERENCE[method][NETWORKS.index(name)] if method in REFERENCE and name in NETWORKS else None
        ours = taken / unit
        row = f"| {name} | {method} | {taken:.3f} | {ours:.2f} |"
        if theirs is None:
            print(f"{row} | | {kept:.4f} |")
            continue
        gain = theirs / REFERENCE_UNIT / ours
        more = "> " if theirs >= CUTOFF else ""
        print(f"{row} {more}{theirs / REFERENCE_UNIT:.2f} | {more}{gain:.1f} | {kept:.4f} |")
        if theirs > WORTH_COUNTING:
            gains.append(gain)
        limit = max(theirs, NEVER_SLOWER_THAN)
        if ours * REFERENCE_UNIT > limit:
            slow.append(f"{name} {method} ({ours * REFERENCE_UNIT:.2f} s on that machine, allowed {limit:.2f} s)")
    if gains:
        print(f"\ngeometric mean over {len(gains)} that take the reference more than {WORTH_COUNTING} s:", end=" ")
        print(f"{statistics.geometric_mean(gains):.1f} times faster (goal: 20)")
    print(f"slower than max(reference, {NEVER_SLOWER_THAN} s): {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
