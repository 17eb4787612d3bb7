"""Networks whose forward does more than call layers: pruned right, or refused in one line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from luigi_prune import api
from luigi_prune.errors import ConfigError

METHODS = ("ThresNet", "SnipNet", "SiPPNet", "FilterThresNet", "ThiNet", "PCANet", "ALDSNet")


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


def square(output: Tensor, targets: Tensor) -> Tensor:
    return (output - 0.3).square().mean()


def pruned(network: nn.Module, method: str, ratio: float = 0.5) -> api.Pruned:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        batches = [(noise(4, seed), torch.zeros(4)) for seed in (1, 2)]
        return api.prune(network, method, ratio, calibration=batches, loss=square)


def or_refusal(run: Callable[[], Any]) -> tuple[Any, str]:
    """Return the result of `run`, or None and the text of its refusal."""
    try:
        return run(), ""
    except ConfigError as error:
        return None, str(error)


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        return copy.deepcopy(network).eval()(x)


class Two(nn.Module):
    """Two layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second, self.head = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


class ByName(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(input=F.relu(self.second(input=F.relu(self.first(input=x)))))


@pytest.mark.parametrize("method", METHODS)
def test_inputs_by_name_are_inputs(method: str) -> None:
    one, other = pruned(Two(), method), pruned(ByName(), method)
    assert one.network.state_dict().keys() == other.network.state_dict().keys()
    for value, another in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(value, another)
    assert (one.size, one.flops, one.compact().size) == (other.size, other.flops, other.compact().size)


class InPlace(Two):
    """Changes its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5))


class Halving(Two):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_changes_its_input_is_run_on_copies(method: str) -> None:
    one, other = pruned(Halving(), method), pruned(InPlace(), method)
    assert (one.warnings, one.flops, one.compact().size) == (other.warnings, other.flops, other.compact().size)
    for value, another in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(value, another)


# --------------------------------------------------------------------------------------------------- draws in a forward


class Dropping(Two):
    """Drops in evaluation mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(F.relu(self.second(F.relu(self.first(x)))), 0.5))


class Noisy(Two):
    """Adds noise, as variational networks do."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.head(F.relu(self.second(x + 0.1 * torch.randn_like(x))))


@pytest.mark.parametrize("kind", [Dropping, Noisy])
@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "ALDSNet"])
def test_draws_are_the_networks_own_and_always_the_same(kind: type[Two], method: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    result = pruned(kind(), method)
    result.compact()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again = pruned(kind(), method).network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in result.network.state_dict().items())


def test_dropping_is_no_reason_to_keep_dead_channels() -> None:
    one, other = pruned(Two(), "FilterThresNet"), pruned(Dropping(), "FilterThresNet")
    assert other.masks.keys() == one.masks.keys()
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())


# ------------------------------------------------------------ what gradients do not show


class Routed(Two):
    """The two best of four experts, in equal parts: no gradient leads to the router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        gates = self.router(x)
        gates = torch.zeros_like(gates).scatter(1, gates.topk(2, 1).indices, 0.5)
        return self.head(sum(gates[:, index : index + 1] * each(x) for index, each in enumerate(self.experts)))


class Branching(Two):
    """One of four experts for each row: the others are not called."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(12, 4), nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        gates, best = self.router(x).softmax(1).max(1)
        x = F.relu(self.first(x))
        result = torch.zeros_like(x)
        for index, each in enumerate(self.experts):
            if (rows := best == index).any():
                result[rows] = each(x[rows]) * gates[rows, None]
        return self.head(F.relu(result))


class LookingUp(Two):
    """The nearest entry of a table, with the gradient of what looks it up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        return self.head(self.table(torch.cdist(x, self.table.weight).argmin(1)))


class Reporting(Two):
    """The weights are part of the output."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + self.second.bias.abs().sum() + self.second.weight.square().sum()


@pytest.mark.parametrize("kind", [Routed, Branching, LookingUp, Reporting])
@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "ALDSNet"])
@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_compact_networks_compute_the_same_or_are_refused(kind: type[Two], method: str, ratio: float) -> None:
    torch.manual_seed(0)
    result = pruned(kind(), method, ratio)
    small, refusal = or_refusal(result.compact)
    if small is None:
        assert "cannot be probed" in refusal
        assert "\n" not in refusal
    else:
        x = noise(64, 9)
        torch.testing.assert_close(outputs(small.network, x), outputs(result.network, x), rtol=1e-4, atol=1e-5)


def test_layers_that_only_choose_are_named() -> None:
    result = pruned(Routed(), "FilterThresNet")
    line = next(text for text in result.warnings if "cannot be probed" in text)
    assert "gradients do not show" in line
    assert "'router'" in line
    with pytest.raises(ConfigError, match=r"gradients do not show .*'router'"):
        result.compact()


def test_layers_that_only_some_inputs_reach_leave_others_alone() -> None:
    """What a branch reads that only some of the calibration data take is no dead channel."""
    torch.manual_seed(0)
    result = pruned(Branching(), "FilterThresNet")
    assert any("which of its layers it calls depends on its inputs ('experts." in text for text in result.warnings)
    weights = {name: mask for name, mask in result.masks.items() if name.endswith("weight")}
    assert not weights["first.weight"].any(1).all()  # filters are pruned, but not what reads them
    assert all(mask.any(0).all() for mask in weights.values())


def test_a_head_that_nothing_uses_is_no_hidden_dependence() -> None:
    class Auxiliary(Two):
        def __init__(self) -> None:
            super().__init__()
            self.auxiliary = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x))
            self.auxiliary(x)
            return self.head(F.relu(self.second(x)))

    result = pruned(Auxiliary(), "FilterThresNet")
    assert not any("cannot be probed" in text for text in result.warnings)
    assert result.compact().size < result.original_size


# ------------------------------------------------------------------------------------- other inputs and other failures


class Generated(nn.Module):
    """A layer of a vector makes the weights of another."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.make, self.head = nn.Parameter(torch.randn(6)), nn.Linear(6, 12 * 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(x @ self.make(self.code).view(12, 16)))


class ByBatch(Two):
    """Statistics of the batch in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x))))))


@pytest.mark.parametrize("kind", [Generated, ByBatch])
def test_vectors_and_statistics_of_a_batch_are_compacted(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    result = pruned(kind(), "FilterThresNet")
    x = noise(9, 3)
    torch.testing.assert_close(outputs(result.compact().network, x), outputs(result.network, x))


class Forces(Two):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)[0]


class Reentrant(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(lambda value: F.relu(self.second(value)), self.first(x), use_reentrant=True))


class Mapped(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.func.vmap(lambda row: F.relu(self.second(F.relu(self.first(row)))))(x))


@pytest.mark.parametrize("kind", [Forces, Reentrant, Mapped])
def test_gradients_and_transforms_in_a_forward_are_pruned_or_refused_in_one_line(kind: type[Two]) -> None:
    refused = 0
    for method in METHODS:
        network = kind()
        result, refusal = or_refusal(partial(pruned, network, method))
        if result is None:
            refused += 1
            assert refusal.startswith(f"{method}: the network fails when the calls of its layers are observed")
            assert "\n" not in refusal
        else:
            assert outputs(result.network, noise(4)).isfinite().all()
    assert 0 < refused < len(METHODS)


def test_errors_of_a_loss_stay_what_they_are() -> None:
    def failing(output: Tensor, targets: Tensor) -> Tensor:
        nn.Linear(3, 3)(output)
        return output.sum()

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        api.prune(Two(), "SnipNet", 0.5, calibration=[(noise(4), torch.zeros(4))], loss=failing)
