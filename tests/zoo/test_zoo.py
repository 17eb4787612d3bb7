"""Networks of every kind, pruned: whatever comes back holds its promises, or one line says why nothing does.

`benchmarks/compatibility.py` runs all methods and all checks, exports included, on more and larger networks.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from luigi_prune import api
from luigi_prune.registry import METHODS
from tests.zoo.checks import CHECKS, EXPORTS, QUICK, Finding, Subject, examine, fingerprint, growth, prune
from tests.zoo.networks import OWN, Specimen, noise
from tests.zoo.torchvision_networks import TORCHVISION

pytestmark = pytest.mark.long

# One per kind of score; that no tensor outlives a prune is tests/compute/pruning/test_memory.py, for all methods.
METHODS_OF_ALL = ("ThresNet", "SiPPNet", "FilterThresNet", "PFPNet", "ALDSNet")
METHODS_OF_TORCHVISION = ("ThresNet", "FilterThresNet", "SVDNet")
FAST = [check for check in QUICK if check != "memory"]
SMALL = [name for name, specimen in TORCHVISION.items() if not specimen.large and name != "squeezenet"]


def holds(finding: Finding) -> bool:
    assert finding.failures == {}, finding
    assert finding.impossible == {}, finding
    return finding.refusal == "" and len(finding.passed) > 1


@pytest.mark.parametrize("name", OWN)
def test_every_kind_of_network_passes_every_check(name: str) -> None:
    for method in METHODS_OF_ALL:
        assert holds(examine(OWN[name], method, FAST)), method


@pytest.mark.parametrize("name", SMALL)
def test_every_family_of_torchvision_is_pruned(name: str) -> None:
    for method in METHODS_OF_TORCHVISION:
        assert holds(examine(TORCHVISION[name], method, ("input", "ratio", "alive", "trains"))), method


@pytest.mark.parametrize("name", ["two inputs", "inputs by name", "U-Net"])
def test_pruned_networks_are_exported(name: str) -> None:
    assert holds(examine(OWN[name], "FilterThresNet", EXPORTS))


# ------------------------------------------------------------------------- the checks find what they are there to find


def subject(method: str, name: str = "rows with BatchNorm") -> Subject:
    network = OWN[name].network()
    return Subject(OWN[name], network, prune(OWN[name], network, method), OWN[name].batches()[0][0])


def spoil_size(found: Subject) -> None:
    found.pruned.size += 1


def spoil_ratio(found: Subject) -> None:
    found.pruned.original_size *= 2


def kill(found: Subject) -> None:
    with torch.no_grad():
        for parameter in found.pruned.network.parameters():
            parameter.zero_()


def divide_by_zero(found: Subject) -> None:
    with torch.no_grad():
        next(found.pruned.network.parameters()).fill_(torch.inf)


def let_go(found: Subject) -> None:
    api.release(found.pruned.network)


def randomise(found: Subject) -> None:
    found.pruned.network.register_forward_hook(lambda module, inputs, output: output + torch.rand(()))


SPOILT = [
    ("ratio", spoil_size), ("ratio", spoil_ratio), ("alive", kill), ("alive", divide_by_zero), ("trains", let_go),
    ("deepcopy", randomise), ("state dict", randomise), ("file", randomise), ("torch.export", randomise),
]  # fmt: skip


@pytest.mark.parametrize(("check", "spoil"), SPOILT)
def test_a_check_fails_on_a_spoilt_result(check: str, spoil: Any) -> None:
    found = subject("ThresNet")
    assert not CHECKS[check](found)
    spoil(found)
    assert CHECKS[check](found)


def test_a_changed_input_shows_in_the_fingerprint() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = fingerprint(network)
    for change in (
        lambda: network(torch.randn(3, 2)),  # running statistics
        lambda: network.eval(),
        lambda: network[0].register_forward_hook(lambda *_: None),
        lambda: network[0].requires_grad_(False),
    ):
        change()
        after = fingerprint(network)
        assert str(before) != str(after)
        before = after


def test_what_grows_with_every_run_is_growth_and_a_cache_is_none() -> None:
    kept: dict[object, torch.Tensor] = {}
    assert "1 and 1 more" in growth(lambda: kept.update({object(): torch.zeros(1)}))
    numbers = itertools.chain([1], itertools.repeat(2))
    assert growth(lambda: kept.update({next(numbers): torch.zeros(1)})) == ""


def test_a_crash_and_a_refusal_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = nn.Linear(4, 10)
    nn.init.constant_(infinite.weight, torch.inf)
    assert "infinite" in examine(Specimen(lambda: copy.deepcopy(infinite), noise(4)), "ThresNet", ()).refusal
    monkeypatch.setattr("luigi_prune.api.prune", lambda *_, **__: 1 / 0)
    assert "ZeroDivisionError" in examine(Specimen(lambda: nn.Linear(4, 10), noise(4)), "ThresNet", ()).failures["runs"]


def test_every_kind_of_method_is_represented() -> None:
    kinds = {row.granularity for row in METHODS.values()} - {"none"}
    assert {METHODS[name].granularity for name in METHODS_OF_ALL} == kinds
