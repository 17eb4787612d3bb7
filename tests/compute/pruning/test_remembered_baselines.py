"""The structure of a network is remembered, and forgotten with everything that it depends on."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.structure import remembered_baselines, structure_probe
from luigi_prune.compute.pruning.structure.remembered_baselines import REMEMBERED
from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe

SKIPS = False
X = torch.ones(2, 4)


def passed_on(value: Tensor) -> Tensor:
    return value


class Net(nn.Module):
    """4-6-3 with a buffer and a switch, both of which decide whether the second half of the hidden units is read."""

    OPEN: Any = (True,)
    gate: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("gate", torch.ones(6))
        self.settings = {"open": True}

    def forward(self, x: Tensor) -> Tensor:
        x = passed_on(self.first(x)) * self.gate
        if SKIPS or not self.settings["open"] or not self.OPEN[0]:
            x = x * torch.tensor([1.0, 1, 1, 0, 0, 0])
        y: Tensor = self.last(x)
        return y


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The probe's first runs."""
    remembered_baselines.forget()
    seen: list[str] = []
    run = StructureProbe._run

    def counted(self: StructureProbe, *args: Any, **kwargs: Any) -> Any:
        seen.append("run")
        return run(self, *args, **kwargs)

    monkeypatch.setattr(StructureProbe, "_run", counted)
    yield seen
    remembered_baselines.forget()


def test_another_probe_of_the_same_network_observes_the_same_without_a_run(runs: list[str]) -> None:
    torch.manual_seed(0)
    one, other = Net(), Net()  # of other weights
    first, second = StructureProbe(one, X), StructureProbe(copy.deepcopy(other), X)
    assert len(runs) == 1
    assert second.baseline.same_as(first.baseline)
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in one.named_parameters()}
    masks["first.weight"][2:] = masks["first.bias"][2:] = False
    seen, again = (probe.observe(dict(masks), silence=True) for probe in (first, second))
    assert again.same_as(seen)
    assert not seen.linked["last"][:, 2:].any()


def closed_buffer(net: Net, patch: pytest.MonkeyPatch) -> None:
    net.gate[3:] = 0


def closed_setting(net: Net, patch: pytest.MonkeyPatch) -> None:
    net.settings["open"] = False


def closed_class(net: Net, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Net, "OPEN", (False,))


def closed_global(net: Net, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "SKIPS", True)


def closed_function(net: Net, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "passed_on", lambda value: value * torch.tensor([1.0, 1, 1, 0, 0, 0]))


def closed_method(net: Net, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Net, "forward", lambda self, x: self.last(self.first(x) * torch.tensor([1.0, 1, 1, 0, 0, 0])))


def closed_instance(net: Net, patch: pytest.MonkeyPatch) -> None:
    closed = types.MethodType(lambda self, x: self.last(self.first(x) * torch.tensor([1.0, 1, 1, 0, 0, 0])), net)
    net.forward = closed  # type: ignore[method-assign]


def closed_hook(net: Net, patch: pytest.MonkeyPatch) -> None:
    scale = torch.tensor([1.0, 1, 1, 0, 0, 0])
    net.first.register_forward_hook(lambda module, inputs, output: output * scale)


CHANGES = (
    *(closed_buffer, closed_setting, closed_class, closed_global),
    *(closed_function, closed_method, closed_instance, closed_hook),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_the_probe_reads_makes_another_network(
    change: Callable[[Net, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net()
    assert not StructureProbe(net, X).baseline.zero_inputs["last"].any()
    change(net, monkeypatch)
    assert StructureProbe(net, X).baseline.zero_inputs["last"].tolist() == [False] * 3 + [True] * 3


def test_variables_of_closures_are_part_of_a_network(runs: list[str]) -> None:
    scale = [1.0]

    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * scale[0]

    for value in (1.0, 1.0, 0.0):
        scale[0] = value
        StructureProbe(nn.Sequential(Scaled(4, 4), nn.Linear(4, 2)), X)
    assert len(runs) == 2


def test_a_bounded_number_of_networks_is_remembered(runs: list[str]) -> None:
    for width in [*range(1, REMEMBERED + 2), 1]:
        StructureProbe(nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2)), X)
    assert len(runs) == REMEMBERED + 2
    assert len(remembered_baselines._baselines) == REMEMBERED


def test_a_network_that_hides_state_is_probed_every_time(runs: list[str]) -> None:
    class Hiding(nn.Linear):
        def __getstate__(self) -> dict[str, Any]:
            return {}

    network = Hiding(4, 3)
    assert structure_probe.key_of(network, list(network.parameters())) is None
