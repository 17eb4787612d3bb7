"""The speed of every method, `api.prune` at keep ratio 0.5: as a multiple of its limit, and relative to torchprune.

python benchmarks/pruning.py [--methods SiPPNet,WT] [--networks resnet20,vgg16,resnet50,vit_b_16] [--threads 1]
    [--repeat 3]

Random weights, batches of 4: 128 images of 3x32x32, or 16 of 3x224x224 for torchvision's networks. Figures are minima
over the repetitions, of wall time and of CPU time. On a busy machine CPU time is more reliable, especially with
--threads 1.

The limit of a method that reads data is one forward and backward over the calibration images, of one that reads none a
pass over the weights and a sort, of a low-rank one the eigenvalues of each layer's smaller Gram matrix, all measured in
the same run. The goals: a median of at most 2 times the limit, none over 3 times (low rank: 2 times), and no method
that reads no data over the time of three forwards.

Machines differ, so the reference's seconds are scaled by those of ResNet20's plain forward and backward over the 128
images, measured again before every method. The goal: at least 20 times (low-rank methods: 10 times) faster in the
geometric mean over the methods that take the reference more than half a second, and none slower than the larger of the
reference and 0.3 s. docs/speed.md has the results of one run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.workloads import (
    Batches,
    Limit,
    Spent,
    build_network,
    calibration,
    forward_and_backward,
    kind_of,
    limits,
    minimum_of,
    prune,
)
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
    warm_up(device)
    unit, timings = unit_of(device), []
    for name in arguments.networks.split(","):
        network, batches = build_network(name).to(device), calibration(device, name)
        limit_of = limits(network, batches)
        for method in methods:
            unit = unit.minimum(unit_of(device, runs=1)) if name in NETWORKS else unit
            timings.append(timed(network, name, method, batches, limit_of[kind_of(method)], arguments.repeat))
            print(f"  {name} {method}: {timings[-1].spent.clock:.3f} s", flush=True)
    report_limits(timings)
    print(
        f"\nunit (ResNet20, forward and backward over 128 images): {unit.clock:.3f} s, CPU {unit.processor:.3f} s here;"
    )
    print(f"{REFERENCE_UNIT} s on the reference's machine")
    for title, low_rank, goal in (("weights, filters and channels", False, 20), ("low rank", True, 10)):
        group = [timing for timing in timings if (METHODS[timing.method].granularity == "rank") == low_rank]
        group = [timing for timing in group if timing.network in NETWORKS]
        if group:
            report(title, group, unit, goal)


class Timing(NamedTuple):
    """The time of a method on a network, and the keep ratio that it achieves."""

    network: str
    method: str
    spent: Spent
    kept: float
    limit: Limit

    @property
    def multiple(self) -> Spent:
        """The time as a multiple of the method's limit."""
        return self.spent.over(self.limit.spent)

    @property
    def share(self) -> Spent:
        """The time as a share of what is allowed."""
        return self.spent.over(self.limit.allowed)

    @property
    def reference(self) -> float | None:
        """The reference's seconds on its machine."""
        measured = self.method in REFERENCE and self.network in NETWORKS
        return REFERENCE[self.method][NETWORKS.index(self.network)] if measured else None


def unit_of(device: torch.device, runs: int = 4) -> Spent:
    """Return the minimum time of ResNet20's plain forward and backward over its calibration set."""
    network, batches = build_network("resnet20").to(device), calibration(device, "resnet20")
    return minimum_of(device, lambda: forward_and_backward(network, batches), runs)


def warm_up(device: torch.device) -> None:
    """Run one method of each kind, so that lazy initialisation is not counted for the first method."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(3136, 10))
    for method in ("ThresNet", "FilterThresNet", "SiPPNet", "ALDSNet"):
        prune(network.to(device), method, calibration(device, "", samples=4))


def timed(network: nn.Module, name: str, method: str, batches: Batches, limit: Limit, repeat: int) -> Timing:
    """Return the minimum time of pruning, and the achieved ratio."""
    ratios: list[float] = []
    spent = minimum_of(batches[0][0].device, lambda: ratios.append(prune(network, method, batches).keep_ratio), repeat)
    return Timing(name, method, spent, ratios[0], limit)


def report_limits(timings: list[Timing]) -> None:
    """Print each method's time as a multiple of its limit, and whether the goals are met."""
    print("\n| network | method | limit | limit, s | s | times the limit | CPU s | times the limit | goal |")
    print("|---|---|---|---:|---:|---:|---:|---:|---|")
    for timing in timings:
        met = "met" if min(timing.share) <= 1 else f"missed by {min(timing.share):.1f} times"
        print(
            f"| {timing.network} | {timing.method} | {kind_of(timing.method)} | {timing.limit.spent.clock:.3f} "
            f"| {timing.spent.clock:.3f} | {timing.multiple.clock:.1f} "
            f"| {timing.spent.processor:.3f} | {timing.multiple.processor:.1f} | {met} |"
        )
    by_data = [timing.multiple for timing in timings if kind_of(timing.method) == "data"]
    if by_data:
        clock, processor = (statistics.median(part) for part in zip(*by_data, strict=True))
        print(f"\nmedian of those that read data: {clock:.2f} times the limit, {processor:.2f} by CPU time (goal: 2)")


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
