"""Trainings together on one GPU, as `[compute] together` runs them, against the same trainings one after another."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu import digits
from benchmarks.gpu.amp import shown, tolerance
from benchmarks.gpu.facts import Facts
from benchmarks.gpu.subjects import synchronise
from benchmarks.gpu.training_speed import BATCH, settings, splits
from luigi_prune.compute.data import Splits
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import TrainResult, train
from luigi_prune.compute.training.together import Training, train_together
from luigi_prune.config.schema import TrainingConfig
from luigi_prune.errors import Interrupted

LEAST_GAIN = 5.0
KEPT = 0.2  # of the weights
SLOW = {"lr": 0.002, "momentum": 0.9, "weight_decay": 1e-4}
MOST_UNLIKE = 0.02  # of the way that the weights went in 10 steps


def masks_of(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return random masks of the weights."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(parameter.shape, generator=generator) < KEPT
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1
    }


class Clock:
    """Images per second from the end of the first epoch of all trainings to the end of the last."""

    def __init__(self, count: int, epochs: int, device: torch.device):
        self._count, self._epochs, self._device = count, epochs, device
        self._ended, self._began, self.seconds = 0, 0.0, 0.0

    def __call__(self, record: object) -> None:
        self._ended += 1
        if self._ended in (self._count, self._count * self._epochs):
            synchronise(self._device)
            began, self._began = self._began, time.perf_counter()
            self.seconds = self._began - began


def rate(count: int, training: TrainingConfig, data: Splits, device: torch.device) -> float:
    """Return the images per second, summed over `count` masked ResNet20s that are trained together."""
    clock = Clock(count, training.num_epochs, device)
    networks = [build("resnet20", (3, 32, 32), 10, seed=seed) for seed in range(count)]
    trainings = [
        Training(network, data, seed, masks_of(network, seed), on_epoch=clock) for seed, network in enumerate(networks)
    ]
    for result in train_together(trainings, training, device=device):
        if isinstance(result, Exception):
            raise result
    return count * (training.num_epochs - 1) * len(data.train) / clock.seconds


def run(facts: Facts, device: torch.device) -> None:
    """Compare what comes out, then how fast it is."""
    with facts.attempt("what each training gives"):
        _compare(facts, device)
    on_gpu = device.type == "cuda"
    data = splits(6400 if on_gpu else BATCH)
    forms: dict[str, dict[str, Any]] = {"fp32": {"enable_amp": False}}
    if on_gpu:
        forms["bf16"] = {"amp_dtype": "bfloat16"}
        forms["bf16, channels last"] = {"amp_dtype": "bfloat16", "channels_last": True}
        forms["fp16"] = {}
    for form, more in forms.items():
        training = settings(**more)
        with facts.attempt(f"{form}: one alone"):
            alone = rate(1, training, data, device)
            facts.measure(f"{form}: one alone", f"{alone:,.0f} images/s", rate=alone)
            for count in ((16, 32) if form == "bf16" else (16,)) if on_gpu else (2,):
                together = rate(count, training, data, device)
                value = f"{together:,.0f} images/s, {together / alone:.2f} times (goal: {LEAST_GAIN:.0f})"
                facts.measure(f"{form}: {count} together", value, rate=together, ratio=together / alone)


def trainings_of(count: int, training: TrainingConfig) -> list[Training]:
    """Return trainings of ResNet8s with the digits, which differ in their seeds."""
    data = digits.splits_of(training)
    networks = [digits.network(seed) for seed in range(count)]
    return [Training(network, data, seed, masks_of(network, seed)) for seed, network in enumerate(networks)]


def _compare(facts: Facts, device: torch.device) -> None:
    """Compare trainings together with each alone, with one that fails, and with an interruption.

    Few small steps: differences of rounding grow tenfold every few steps at usual rates.
    """
    training = digits.settings(enable_amp=False, num_epochs=2, batch_size=256, optimizer_kwargs=SLOW)
    alone = [
        train(each.network, training, each.splits, seed=each.seed, masks=each.masks, device=device)
        for each in trainings_of(4, training)
    ]
    together = train_together(trainings_of(4, training), training, device=device)
    _check(facts, "together and alone", alone, together)

    def fail(record: object) -> None:
        raise RuntimeError("this one fails")

    several = trainings_of(4, training)
    several[1] = replace(several[1], on_epoch=fail)
    results = train_together(several, training, device=device)
    facts.check("one that fails", isinstance(results[1], RuntimeError), results[1])
    _check(facts, "beside one that fails", [alone[place] for place in (0, 2, 3)], [results[i] for i in (0, 2, 3)])
    with tempfile.TemporaryDirectory() as folder:
        calls = iter(range(10**6))
        saved = [
            replace(each, checkpoint=Path(folder) / str(each.seed), should_stop=lambda: next(calls) >= 4 * 7)
            for each in trainings_of(4, training)
        ]
        ends = train_together(saved, training, device=device)
        facts.check("interrupted", all(isinstance(end, Interrupted) for end in ends), ends[0])
        fresh = [replace(each, checkpoint=Path(folder) / str(each.seed)) for each in trainings_of(4, training)]
        _check(facts, "interrupted and resumed", alone, train_together(fresh, training, device=device))
    usual, seeds = digits.settings(enable_amp=False), 8 if device.type == "cuda" else 2  # enough for a rehearsal
    found = train_together(trainings_of(seeds, usual), usual, device=device)
    one_by_one = [
        train(each.network, usual, each.splits, seed=each.seed, masks=each.masks, device=device)
        for each in trainings_of(seeds, usual)
    ]
    means = [
        [digits.accuracy(usual, result.state, device) for result in results if not isinstance(result, Exception)]
        for results in (found, one_by_one)
    ]
    off, allowed = statistics.mean(means[0]) - statistics.mean(means[1]), tolerance(*means)
    value = f"{shown(means[0])} together, {shown(means[1])} alone"
    facts.check("accuracies", len(means[0]) == seeds and abs(off) <= allowed, value, together=means[0], alone=means[1])


def _check(facts: Facts, name: str, ones: Sequence[TrainResult | Exception], others: Sequence[Any]) -> None:
    unlike = max(_difference(one, other) for one, other in zip(ones, others, strict=True))
    value = f"weights differ by {unlike:.1e} of what the training changed"
    facts.check(name, unlike <= MOST_UNLIKE, value, difference=unlike)


def _difference(one: TrainResult | Exception, other: TrainResult | Exception) -> float:
    """Return the distance of the weights of two trainings, as a part of the distance that one of them went.

    Both began as ResNet8s that differ in the seed alone, so that the shortest way is taken for that of the first.
    """
    for result in (one, other):
        if isinstance(result, Exception):
            raise result
    assert isinstance(one, TrainResult)
    assert isinstance(other, TrainResult)
    names = [name for name, value in one.state.items() if value.is_floating_point() and "running" not in name]
    starts = [digits.network(seed).state_dict() for seed in range(4)]
    kept = {name: one.state[name] != 0 for name in names}
    went = min(_distance(names, one.state, {name: kept[name] * start[name] for name in names}) for start in starts)
    return _distance(names, one.state, other.state) / went


def _distance(names: Sequence[str], one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return sum(float((one[name] - other[name]).double().square().sum()) for name in names) ** 0.5
