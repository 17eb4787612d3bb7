"""Every method prunes under deterministic algorithms, and to the same bits twice."""

from __future__ import annotations

import os

import torch

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.masks import prune
from benchmarks.gpu.resume import WORKSPACE, deterministic_algorithms
from benchmarks.gpu.subjects import conv_net, pruning_methods


def same_twice(method: str, device: torch.device) -> list[str]:
    """Return the names of weights that two runs with one seed prune differently."""
    states = [prune(conv_net(), method, device, 16)[0].network.state_dict() for _ in range(2)]
    if list(states[0]) != list(states[1]):
        return sorted(set(states[0]) ^ set(states[1]))
    return [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]


def run(facts: Facts, device: torch.device) -> None:
    """Prune by every method twice; torch raises for an operation that has no deterministic form."""
    os.environ.setdefault(*WORKSPACE)
    with deterministic_algorithms():
        for method in pruning_methods():
            with facts.attempt(method.name):
                differing = same_twice(method.name, device)
                shown = f"{len(differing)} tensors differ: {', '.join(differing[:3])}"
                facts.check(method.name, not differing, shown if differing else "the same bits twice")
