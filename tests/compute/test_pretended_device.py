"""The pretended device refuses what a GPU refuses, and synchronisations on it are counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.compute.pretended_device import OnDevice, pretended_device
from tests.compute.synchronisations import count_synchronisations

REFUSED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a sum": lambda here, there: here + there,
    "a sum into the CPU": lambda here, there: here.add_(there.sum()),
    "a number of the device": lambda here, there: here * there.sum(),
    "a product of matrices": lambda here, there: there @ here,
    "cat": lambda here, there: torch.cat([there, here]),
    "cat with numbers": lambda here, there: torch.stack([there.sum(), here.sum()]),
    "where": lambda here, there: torch.where(there > 0, there, here),
    "a mask of the device for the CPU": lambda here, there: here[there > 0],
    "places of the device for the CPU": lambda here, there: here[there.long()],
    "values from the CPU": lambda here, there: there.index_put_((torch.tensor([0]),), here[:1]),
    "index_select": lambda here, there: there.index_select(0, torch.tensor([0])),
    "gather": lambda here, there: there.gather(0, here.long()),
    "a generator of the CPU": lambda here, there: torch.rand(3, device=there.device, generator=torch.Generator()),
    "numpy": lambda here, there: there.numpy(),
}
ALLOWED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a number of the CPU": lambda here, there: there * here.sum(),
    "a Python number": lambda here, there: there + 1,
    "places on the CPU": lambda here, there: there[torch.tensor([0, 1])],
    "a mask on the CPU": lambda here, there: there[torch.eye(3).bool()],
    "a new tensor beside": lambda here, there: there.new_zeros(3) + torch.tensor([1.0], device=there.device),
    "a copy": lambda here, there: there.copy_(here),
    "where with a number": lambda here, there: torch.where(there > 0, there, -torch.inf),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    here = torch.rand(3, 3)
    with pretended_device() as device:
        there = torch.rand(3, 3).to(device)
        with pytest.raises((RuntimeError, TypeError)):
            REFUSED[what](here, there)


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed(what: str) -> None:
    here, other = torch.rand(3, 3), torch.rand(3, 3)
    with pretended_device() as device:
        found = ALLOWED[what](here, other.to(device))
        assert found.device == device
        found = found.cpu()
    assert not isinstance(found, OnDevice)
    if what not in ("a new tensor beside",):
        expected = {"a copy": here}.get(what)
        assert torch.equal(found, ALLOWED[what](here, other.clone()) if expected is None else expected)


def test_networks_run_and_learn_there() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    x = torch.rand(5, 1, 4, 4)
    network(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    with pretended_device() as device:
        network.to(device)(x.to(device)).sum().backward()
        found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert all(gradient.device == device for gradient in found)
        assert len(found) == len(expected) == 6
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.cpu(), other)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (lambda there: there.sum().item(), "item"),
        (lambda there: bool(there.any()), "item"),
        (lambda there: there.cpu(), "copy to CPU"),
        (lambda there: torch.empty(3).copy_(there), "copy to CPU"),
        (lambda there: torch.zeros(3).to(there.device), "copy to device"),
        (lambda there: torch.tensor([1.0], device=there.device), "copy to device"),
        (lambda there: there.nonzero(), "nonzero"),
        (lambda there: there[there > 0], "index by mask"),
        (lambda there: there.masked_select(there > 0), "masked_select"),
        (lambda there: torch.equal(there, there.clone()), "equal"),
    ],
)
def test_what_waits_is_counted(operation: Callable[[Tensor], object], kind: str) -> None:
    with pretended_device() as device:
        there = torch.rand(3).to(device)
        with count_synchronisations() as counts:
            operation(there)
    assert dict(counts.by_operation) == {kind: 1}
    assert counts.total == 1


def test_what_does_not_wait_is_not_counted() -> None:
    with pretended_device() as device, count_synchronisations() as counts:
        there = torch.zeros(3).to(device, non_blocking=True)
        there[there > 0] = 1
        (there * 2).sum().sqrt().add_(there.amax())
        float(torch.rand(3).sum())
        torch.nonzero(torch.rand(3))
    assert counts.total == 0
