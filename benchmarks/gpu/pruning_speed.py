"""Each method's seconds on the device, beside those on this CPU and those of one forward and backward pass."""

from __future__ import annotations

import math
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.subjects import LOSS, Batches, calibration, pruning_methods, resnet20, synchronise
from benchmarks.pruning import build_network
from luigi_prune import api
from luigi_prune.compute.pruning.low_rank import spectra

CPU = torch.device("cpu")
SECONDS_TO_SPARE = 4.0  # kept for the summary
MOST_PASSES = 3.0  # passes, over all methods
FEW = ("ThresNet", "FilterThresNet", "SVDNet", "SiPPNet", "ALDSNet")  # on the CPU, where all would take too long


class OutOfTime(BaseException):
    """A cell's time is over; no Exception, so that nothing under way takes it for an error of its own."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after so many seconds, as soon as Python gets to run."""

    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seconds_of(run: Callable[[], object], device: torch.device, repeats: int = 4) -> float:
    """Return the median time of several runs but the first, which loads kernels.

    Two runs are enough if they take seconds; on a CPU, which has no kernels to load, one of a third of a second.
    """
    taken: list[float] = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - began)
        if (len(taken) > 1 and taken[-1] > 1.0) or (device.type == "cpu" and taken[0] > 0.3):
            break
    return statistics.median(taken[1:] or taken)


def pruning_seconds(network: nn.Module, method: str, batches: Batches, repeats: int = 4) -> float:
    """Return the seconds of pruning to a half, without what earlier runs have read of singular values."""

    def once() -> None:
        spectra.clear_cache()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            api.prune(network, method, keep_ratio=0.5, calibration=batches, loss=LOSS)

    return seconds_of(once, batches[0][0].device, repeats)


def pass_seconds(network: nn.Module, batches: Batches) -> float:
    """Return the seconds of one forward and backward pass over the calibration batches."""

    def once() -> None:
        for x, y in batches:
            LOSS(network(x), y).backward()

    return seconds_of(once, batches[0][0].device)


class Bench(NamedTuple):
    """A network with its calibration batches."""

    network: nn.Module
    batches: Batches

    def seconds(self, method: str, cell: float, repeats: int) -> float:
        """Return a method's seconds; raises OutOfTime when they are more than `cell`."""
        with limit(cell):
            return pruning_seconds(self.network, method, self.batches, repeats)


def compare(
    facts: Facts, build: Callable[[], nn.Module], device: torch.device, on_cpu: Sequence[str], cell: float, **data: int
) -> None:
    """Time every method on `device`, and those named in `on_cpu` here; `cell` seconds are the limit of each."""
    there = Bench(build().to(device), calibration(device, **data))
    here = Bench(build(), calibration(CPU, **data))
    unit = pass_seconds(*there)
    facts.measure("one forward and backward pass", f"{unit:.4f} s", seconds=unit)
    gains: dict[str, float] = {}
    passes: list[float] = []
    methods = [method.name for method in pruning_methods()]
    for index, name in enumerate(methods):
        left = facts.seconds_left - SECONDS_TO_SPARE
        if left < 1:
            facts.skip("the other methods", f"no time left for {', '.join(methods[index:])}")
            break
        try:
            with facts.attempt(name):
                seconds = there.seconds(name, min(cell, left), repeats=3)
                passes.append(seconds / unit)
                gain = _report(facts, name, seconds, unit, here if name in on_cpu else None, cell)
                if gain is not None:
                    gains[name] = gain
        except OutOfTime as error:
            passes.append(math.inf)
            facts.measure(name, error)
    if passes:
        median = statistics.median(passes)
        value = f"{median:.1f} (goal: at most {MOST_PASSES:.0f}); {len(passes)} of {len(methods)} methods"
        facts.measure("median of the methods, in passes", value, median=median)
    if gains:
        slower = [f"{name} ({gain:.2f})" for name, gain in gains.items() if gain < 1]
        mean = statistics.geometric_mean(gains.values())
        facts.measure("CPU seconds / device seconds", f"{mean:.2f}, the geometric mean of {len(gains)}", mean=mean)
        facts.measure("slower on the device than on the CPU", ", ".join(slower) or "none", methods=slower)


def _report(facts: Facts, name: str, seconds: float, unit: float, here: Bench | None, cell: float) -> float | None:
    """Report a method's seconds, with those on the CPU if `here` is given; return how many times as long those are."""
    value, numbers = f"{seconds:.4f} s, {seconds / unit:.1f} passes", {"seconds": seconds, "passes": seconds / unit}
    left = facts.seconds_left - SECONDS_TO_SPARE
    if here is None or left < 1:
        facts.measure(name, value, **numbers)
        return None
    try:
        on_cpu = here.seconds(name, min(cell, left), repeats=4)
    except OutOfTime as error:
        facts.measure(name, f"{value}; on the CPU {error}", **numbers)
        return None
    gain = on_cpu / seconds
    facts.measure(name, f"{value}; on the CPU {on_cpu:.3f} s, {gain:.1f} times as long", cpu_seconds=on_cpu, **numbers)
    return gain


def run_resnet20(facts: Facts, device: torch.device) -> None:
    """ResNet20, 128 images of 32x32 in batches of 4."""
    compare(facts, resnet20, device, FEW, cell=6, samples=128)


def run_vgg16(facts: Facts, device: torch.device) -> None:
    """VGG16 for 32x32 images, 128 of them in batches of 4."""
    compare(facts, lambda: build_network("vgg16"), device, FEW, cell=8, samples=128)


def resnet50() -> nn.Module:
    """Return torchvision's ResNet-50 with random weights."""
    from torchvision.models import resnet50 as build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(weights=None)


def run_resnet50(facts: Facts, device: torch.device) -> None:
    """ResNet-50, 16 images of 224x224 in batches of 4."""
    compare(facts, resnet50, device, FEW[:2], cell=5, samples=16, size=224, classes=1000)
