"""The logic of recorded steps on a CPU, with a graph that repeats the recorded calls; `tests/gpu` has real ones."""

from __future__ import annotations

import random
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.gpu import digits
from benchmarks.gpu.together import masks_of
from luigi_prune.compute.training import graphed_step
from luigi_prune.compute.training import together as together_module
from luigi_prune.compute.training.graphed_step import GraphedStep, obstacle
from luigi_prune.compute.training.optimizers import build_optimizer
from luigi_prune.compute.training.schedules import build_schedule
from luigi_prune.compute.training.step import take_step
from luigi_prune.compute.training.steppers import failure
from luigi_prune.compute.training.together import Training, train_together
from luigi_prune.config.schema import TrainingConfig

CPU = torch.device("cpu")


class RepeatingGraph:
    """Records the call of `take_step` inside `recording`, without its effects, and repeats it."""

    def __init__(self) -> None:
        self.replays = 0

    @contextmanager
    def recording(self, monkeypatch: pytest.MonkeyPatch):
        def record(run, parts, scale):
            self._call = run, parts, scale
            tensors = [(tensor, tensor.clone()) for tensor in graphed_step._changing(run)]
            self._passes = take_step(run, parts, scale)
            for tensor, value in tensors:
                tensor.copy_(value)
            return self._passes

        with monkeypatch.context() as patch:
            patch.setattr(graphed_step, "take_step", record)
            yield

    def replay(self) -> None:
        self.replays += 1
        for old, new in zip(self._passes, take_step(*self._call), strict=True):
            old.outputs.data.copy_(new.outputs)
            old.value.data.copy_(new.value)


class OnTheCPU:
    """The stepper, without streams."""

    def __init__(self, steps: dict) -> None:
        self._steps = steps

    def prepare(self, runs) -> None:
        self._now = [self._steps.setdefault(id(run), GraphedStep(run)) for run in runs]

    def step(self, batches):
        return [failure(take, *batch) for take, batch in zip(self._now, batches, strict=True)]

    def write_back(self) -> None:
        pass


TRAINING = digits.settings(num_epochs=2, enable_amp=False)


def trainings():
    data = digits.splits_of(TRAINING)
    networks = [digits.network(seed) for seed in range(2)]
    return [Training(network, data, seed, masks_of(network, seed)) for seed, network in enumerate(networks)]


@pytest.fixture(scope="module")
def alone():
    return train_together(trainings(), TRAINING, device=CPU)


@pytest.fixture
def graphs(monkeypatch):
    """Let steps be recorded on the CPU; return the graphs and the steps of runs."""
    made, steps = [], {}

    def new_graph():
        made.append(RepeatingGraph())
        return made[-1]

    monkeypatch.setattr(graphed_step, "obstacle", lambda run: "")
    monkeypatch.setattr(graphed_step, "_drew_random_numbers", lambda device: False)
    monkeypatch.setattr(graphed_step, "_recordable", lambda optimizer, rate: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", new_graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **more: graph.recording(monkeypatch))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(together_module, "OneByOne", lambda: OnTheCPU(steps))
    return made, steps


def test_recorded_steps_give_what_usual_ones_give(alone, graphs):
    found = train_together(trainings(), TRAINING, device=CPU)
    made, steps = graphs
    # Two usual steps, one that checks the graph; and the smaller last batch of each of the two epochs.
    assert [graph.replays for graph in made] == [2 * 21 - 2 - 2] * 2
    assert not any(step.obstacle for step in steps.values())
    for result, expected in zip(found, alone, strict=True):
        assert digits.differences(result, expected) == ([], 0.0)


def test_a_network_that_a_graph_does_not_repeat_takes_usual_steps(alone, graphs, monkeypatch, caplog):
    replay = RepeatingGraph.replay
    monkeypatch.setattr(RepeatingGraph, "replay", lambda graph: [replay(graph), replay(graph)])
    found = train_together(trainings(), TRAINING, device=CPU)
    assert caplog.text.count("differs from a usual one") == 2
    for result, expected in zip(found, alone, strict=True):
        assert digits.differences(result, expected) == ([], 0.0)


def test_a_smaller_batch_is_not_recorded(graphs):
    training = digits.settings(num_epochs=3, batch_size=500, enable_amp=False)  # the third step is the first to record
    train_together(trainings(), training, device=CPU)
    made, _ = graphs
    assert [graph.replays for graph in made] == [2 * 2] * 2  # each epoch's last batch is smaller


def test_a_step_that_cannot_be_recorded_is_taken_as_usual(alone, graphs, monkeypatch, caplog):
    ended = []

    @contextmanager
    def refuse(graph, **more):
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            raise RuntimeError("failed due to a previous error during capture")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    monkeypatch.setattr(graphed_step, "_end_failed_recording", lambda device, pool: ended.append(pool))
    found = train_together(trainings(), TRAINING, device=CPU)
    assert caplog.text.count("not recorded as a CUDA graph: operation not permitted") == 2
    assert ended == [(0, 1)] * 2
    for result, expected in zip(found, alone, strict=True):
        assert digits.differences(result, expected) == ([], 0.0)


class Remembering(nn.Module):
    """A small network whose outputs depend on what a graph does not change; `form`: what that is."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.network, self.form, self._calls = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), form, 0
        self.register_buffer("mean", torch.zeros(()))
        self.edges = torch.eye(2).to_sparse()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "calls":
            self._calls += 1
        elif self.form == "mean":  # a new tensor, not its memory
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        elif self.form == "data":
            self.mean.data = 0.9 * self.mean + 0.1 * x.detach().mean()
        draws = {"python": random.random, "numpy": np.random.random}
        return self.network(x) * (1 + self.mean + self._calls / 100 + draws.get(self.form, float)() / 100)


def test_a_network_with_state_outside_its_memory_is_not_recorded(graphs):
    training = digits.settings(num_epochs=2, batch_size=500, enable_amp=False)
    data = digits.splits_of(training)
    named = {"calls": "_calls", "mean": "mean", "data": "mean", "python": "Python", "numpy": "NumPy", "": ""}
    train_together([Training(Remembering(form), data, 0) for form in named], training, device=CPU)
    made, steps = graphs
    assert len(made) == 1  # of the last one
    assert [each.obstacle.split(" ")[-1] for each in steps.values()] == list(named.values())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, ""),
        ({"optimizer": "RMSprop", "optimizer_kwargs": {"lr": 0.1}}, "RMSprop"),
        ({"micro_batch_size": 8}, "microBatchSize"),
        ({"compile": True}, "compiled"),
        ({"lr_schedulers": [{"type": "OneCycleLR", "kwargs": {"max_lr": 0.1, "total_steps": 100}}]}, "momentum"),
    ],
)
def test_obstacles_are_named(settings, named):
    training = TrainingConfig(**(TRAINING.model_dump() | settings))
    run = SimpleNamespace(
        request=SimpleNamespace(training=training, device=torch.device("cuda"), ranks=SimpleNamespace(size=1)),
        optimizer=build_optimizer(training.optimizer, training.optimizer_kwargs, digits.network(0).parameters()),
        schedule=build_schedule(training, 21),
    )
    found = obstacle(run)
    assert named in found
    assert bool(found) == bool(named)
