"""Measured latency of several networks, alternately in one process, so that a busy machine slows all alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from luigi_prune.compute.network_inputs import Inputs, call, device_of, sample_count, tensors_of, to_device
from luigi_prune.compute.pruning.problem.layers import evaluating

ROUNDS = 11  # odd, so that a median is one of them


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass over a batch: the median of the rounds and their quartiles.

    `ratio`: over the first network's of the same round, the median and the quartiles of all rounds.
    """

    name: str
    seconds: float
    quartiles: tuple[float, float]
    ratio: float
    ratio_quartiles: tuple[float, float]
    batch: int
    threads: int
    device: str
    dtype: str

    @property
    def samples_per_second(self) -> float:
        """The throughput at this batch size."""
        return self.batch / self.seconds


def measure_latency(
    networks: Mapping[str, nn.Module], inputs: Inputs, *, threads: int = 1, seconds: float = 1.0
) -> list[Latency]:
    """Return the latency of each network in evaluation mode on one batch of inputs, ratios over the first network's.

    Each of the `ROUNDS` rounds times all networks in turn with `torch.utils.benchmark`, which warms up and waits for
    a GPU. `seconds`: for all rounds of one network, about.
    """
    names, device = list(networks), device_of(inputs)
    times = np.empty((ROUNDS, len(names)))
    for network in networks.values():
        network.to(device)
    batch = to_device(inputs, device)
    with torch.inference_mode():
        counts = [_count(networks[name], batch, threads, seconds / ROUNDS) for name in names]
        for row in range(ROUNDS):
            for column, name in enumerate(names):
                times[row, column] = _time(networks[name], batch, threads, counts[column])
    ratios = times / times[:, :1]
    first = tensors_of(inputs)[0]
    dtype = next((p.dtype for p in networks[names[0]].parameters()), first.dtype)
    about: dict[str, Any] = {"batch": sample_count(inputs), "threads": threads, "device": _device_name(device)}
    about["dtype"] = str(dtype).removeprefix("torch.")
    return [
        Latency(name, *_spread(times[:, column]), *_spread(ratios[:, column]), **about)
        for column, name in enumerate(names)
    ]


def _time(network: nn.Module, batch: Inputs, threads: int, count: int) -> float:
    """Return the mean seconds of `count` forward passes."""
    from torch.utils.benchmark import Timer  # prints a line on machines without CUDA's tools

    with evaluating(network):
        timer = Timer(
            "run(network, batch)", globals={"run": call, "network": network, "batch": batch}, num_threads=threads
        )
        return float(timer.timeit(count).mean)


def _count(network: nn.Module, batch: Inputs, threads: int, seconds: float) -> int:
    """Return how many passes last `seconds`; runs a few to warm up."""
    _time(network, batch, threads, 1)
    return max(1, math.ceil(seconds / max(1e-7, _time(network, batch, threads, 2))))


def _spread(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), (float(low), float(high))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
