"""Trainings in half precision reach the accuracy of the CPU's, within the spread of the seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from benchmarks.gpu import digits
from benchmarks.gpu.facts import Facts
from luigi_prune.compute.training import train
from luigi_prune.config.schema import TrainingConfig

CPU = torch.device("cpu")
SEEDS = range(5)
STANDARD_ERRORS = 3.0
TEST_SAMPLES = 360  # of the digits: one sample is the step in which accuracies differ


def accuracies(training: TrainingConfig, device: torch.device) -> list[float]:
    """Return the test accuracy after training, one per seed."""
    return [
        digits.accuracy(training, digits.train_digits(training, device, seed=seed).state, device) for seed in SEEDS
    ]  # fmt: skip


def tolerance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return what the means of two samples may differ by: three standard errors, which the seeds' spread gives.

    It is never less than one test sample, the unit of a single accuracy.
    """
    error = math.sqrt(statistics.variance(first) / len(first) + statistics.variance(second) / len(second))
    return max(STANDARD_ERRORS * error, 1 / TEST_SAMPLES)


def half_type(training: TrainingConfig, device: torch.device) -> str:
    """Return the type in which the network computes while it trains."""
    network, seen = digits.network(0), set()
    network.register_forward_hook(
        lambda module, inputs, output: seen.add(str(output.dtype)) if module.training else None
    )  # fmt: skip
    short = training.model_copy(update={"num_epochs": 1})
    train(network, short, digits.splits_of(short), seed=0, device=device)
    return ", ".join(sorted(seen))


def run(facts: Facts, device: torch.device) -> None:
    """Train on the CPU, then on the device in fp32, fp16 and bf16."""
    base = accuracies(digits.settings(enable_amp=False), CPU)
    facts.measure("CPU fp32", shown(base), accuracies=base)
    trainings = {"fp32": digits.settings(enable_amp=False), "fp16": digits.settings(enable_amp=True)}
    if "amp_dtype" in TrainingConfig.model_fields:
        trainings["bf16"] = digits.settings(enable_amp=True, amp_dtype="bfloat16")
    else:
        facts.skip("device bf16", "TrainingConfig has no amp_dtype")
    types = {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}
    for name, training in trainings.items():
        with facts.attempt(f"device {name}"):
            found = accuracies(training, device)
            short = statistics.mean(base) - statistics.mean(found)
            allowed = tolerance(base, found)
            value = f"{shown(found)}; short of the CPU by {100 * short:.2f} %, allowed {100 * allowed:.2f} %"
            facts.check(f"device {name}", short <= allowed, value, accuracies=found, allowed=allowed)
        with facts.attempt(f"device {name} computes in"):
            seen, wanted = half_type(training, device), types[name] if device.type == "cuda" else types["fp32"]
            facts.check(f"device {name} computes in", seen == wanted, seen)


def shown(found: Sequence[float]) -> str:
    """Return mean and spread in percent."""
    return f"{100 * statistics.mean(found):.2f} ± {100 * statistics.stdev(found):.2f} % over {len(found)} seeds"
