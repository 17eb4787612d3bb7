"""A pruned network that moves between devices keeps its zeros, and so does its optimizer."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.subjects import LOSS, calibration, conv_net
from luigi_prune import api

CPU = torch.device("cpu")
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=1e-2),
}


def pruned_on(device: torch.device, method: str) -> api.Pruned:
    """Return the small network pruned to a half on `device`."""
    return api.prune(
        conv_net().to(device), method, keep_ratio=0.5, calibration=calibration(device, 16), loss=LOSS
    )  # fmt: skip


def move_optimizer(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move an optimizer's state to `device`, as a loop of one's own would."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim():
                state[name] = value.to(device)


def take_steps(network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, steps: int = 3) -> None:
    """Train a few steps on noise."""
    network.train()
    for x, y in calibration(device, 4 * steps):
        optimizer.zero_grad()
        LOSS(network(x), y).backward()
        optimizer.step()


def revived(network: nn.Module, masks: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Return how many removed entries are not zero, in parameters and in the optimizer's state."""
    count = 0
    for name, parameter in network.named_parameters():
        if name in masks:
            removed = ~masks[name].to(parameter.device)
            tensors = [parameter, *optimizer.state.get(parameter, {}).values()]
            alike = [tensor for tensor in tensors if isinstance(tensor, Tensor) and tensor.shape == removed.shape]
            count += sum(int(tensor.detach()[removed.to(tensor.device)].count_nonzero()) for tensor in alike)
    return count


def travel(method: str, optimizer_name: str, device: torch.device) -> list[tuple[str, int]]:
    """Return (place, revived entries) after each leg of CPU -> device -> CPU -> device, one optimizer all along."""
    pruned = pruned_on(CPU, method)
    masks = {name: mask.clone() for name, mask in pruned.masks.items()}
    optimizer = OPTIMIZERS[optimizer_name](pruned.network.parameters())
    found = []
    for place in (CPU, device, CPU, device):
        pruned.network.to(place)
        move_optimizer(optimizer, place)
        take_steps(pruned.network, optimizer, place)
        found.append((place.type, revived(pruned.network, masks, optimizer)))
    return found


def same_after_saving(device: torch.device, method: str) -> tuple[bool, float]:
    """Return whether a result made on `device` has the same weights and masks from its file, and by how much the
    outputs on the CPU differ.
    """
    pruned = pruned_on(device, method)
    with tempfile.TemporaryDirectory() as folder:
        pruned.save(Path(folder) / "pruned.h5")
        again = api.load(Path(folder) / "pruned.h5", conv_net())
    ours, theirs = pruned.network.state_dict(), again.network.state_dict()
    same = all(torch.equal(ours[name].cpu(), theirs[name]) for name in ours)
    same = same and all(torch.equal(mask.cpu(), again.masks[name]) for name, mask in pruned.masks.items())
    x = calibration(CPU, 8, batch=8)[0][0]
    with torch.no_grad():
        outputs = [copy.deepcopy(result.network).to(CPU).eval()(x) for result in (pruned, again)]
    return same, float((outputs[0] - outputs[1]).abs().max())


def run(facts: Facts, device: torch.device) -> None:
    """Move networks of three granularities about with two optimizers, and through a file."""
    for method in ("ThresNet", "FilterThresNet"):
        for optimizer in OPTIMIZERS:
            name = f"{method}, {optimizer}: revived entries"
            with facts.attempt(name):
                found = travel(method, optimizer, device)
                facts.check(name, not any(count for _, count in found), ", ".join(f"{p} {c}" for p, c in found))
    for method in ("ThresNet", "FilterThresNet", "ALDSNet"):
        name = f"{method} made on the device, saved, loaded on the CPU"
        with facts.attempt(name):
            same, difference = same_after_saving(device, method)
            facts.check(name, same and difference == 0, f"same bits: {same}, outputs differ by {difference:.1e}")
