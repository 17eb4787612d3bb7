"""Networks that cannot be copied, or whose copies share something with them, are refused by name, unchanged."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.errors import ConfigError


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        self.act: Callable[[Tensor], Tensor] = torch.relu

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.act(self.b(self.act(self.a(x)))))  # type: ignore[no-any-return]


class Same(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Same:
        return self


class Shallow(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Shallow:
        return copy.copy(self)


class SameRoot(Three):
    def __deepcopy__(self, memo: Any) -> SameRoot:
        return self


class Failing(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Failing:
        raise ValueError("not me")


class Numbered(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def with_part(part: nn.Module) -> Three:
    network = Three()
    network.b = part  # type: ignore[assignment]
    return network


def with_lock() -> Three:
    network = Three()
    network.b.lock = threading.Lock()
    return network


def with_function(name: str) -> Three:
    network = Three()
    layer = network.b
    setattr(network, name, (lambda x: network.c(x)) if name == "forward" else lambda x: layer(x).relu())
    return network


REFUSED = {
    "returns itself": (lambda: with_part(Same(16, 16)), r"'b' \(Same\) is shared with its copy"),
    "shares its tensors": (lambda: with_part(Shallow(16, 16)), r"'b' \(Shallow\) is shared with its copy"),
    "the network returns itself": (SameRoot, r"the network \(SameRoot\) is shared with its copy"),
    "fails": (lambda: with_part(Failing(16, 16)), r"'b' \(Failing\): ValueError: not me"),
    "a lock": (with_lock, r"'b\.lock' \(lock\): TypeError: cannot pickle"),
    "a function": (lambda: with_function("act"), r"'act' is a function that uses 'b'"),
    "its forward": (lambda: with_function("forward"), r"'forward' is a function that uses the network"),
}


@pytest.mark.parametrize("method", ["ThresNet", "SVDNet", "FilterThresNet", "ScratchNet"])
@pytest.mark.parametrize("kind", REFUSED)
def test_networks_that_share_with_their_copies_are_refused_unchanged(kind: str, method: str):
    make, message = REFUSED[kind]
    network = make()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(6, 16 if kind == "its forward" else 12)
    with pytest.raises(ConfigError, match=r"^the network cannot be copied: " + message):
        api.prune(network, method, 0.5, example_input=x)
    assert network.training
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_file_is_not_loaded_into_such_a_network(tmp_path: Path):
    api.prune(Three(), "ThresNet", 0.5, example_input=torch.randn(6, 12)).save(tmp_path / "f.h5")
    network = with_part(Same(16, 16))
    before = network.b.weight.clone()
    with pytest.raises(ConfigError, match=r"'b' \(Same\) is shared"):
        api.load(tmp_path / "f.h5", network)
    assert torch.equal(network.b.weight, before)


def test_hooks_that_use_the_network_are_told_of():
    network, seen = Three(), list[int]()
    network.a.register_forward_hook(lambda module, x, y: seen.append(network.b.out_features))
    network.c.register_forward_hook(lambda module, x, y: seen.append(1))
    with pytest.warns(UserWarning, match="hooks of 'a' use modules of the network that is passed in"):
        api.prune(network, "ThresNet", 0.5, example_input=torch.randn(6, 12))


def test_functions_without_the_networks_modules_are_no_obstacle():
    network, other, scale = Three(), nn.Linear(16, 16), 2.0
    network.act = lambda x: scale * torch.relu(other(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned = api.prune(network, "ThresNet", 0.5, example_input=torch.randn(6, 12))
    assert pruned.network.act is network.act


def test_parameters_on_one_memory_are_named():
    network = Three()
    network.c = nn.Linear(16, 16)
    network.c.weight = nn.Parameter(network.b.weight.data)
    with pytest.warns(UserWarning, match="'b.weight', 'c.weight': share their memory, but are no single parameter"):
        pruned = api.prune(network, "ThresNet", 0.5, example_input=torch.randn(6, 12))
    assert pruned.network.b.weight.data_ptr() != pruned.network.c.weight.data_ptr()


def test_state_that_is_no_tensor_is_named(tmp_path: Path):
    pruned = api.prune(with_part(Numbered(16, 16)), "ThresNet", 0.5, example_input=torch.randn(6, 12))
    for write in (
        lambda: pruned.save(tmp_path / "f.h5"),
        lambda: api.export(pruned, tmp_path / "f.pt", "state-dict"),
    ):
        with pytest.raises(ConfigError, match=r"'b\._extra_state' of the network's state is no tensor \(dict\)"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_seed_is_an_integer_of_any_type():
    x = torch.randn(6, 12)
    for seed in (np.int64(3), torch.tensor(3)):
        api.prune(Three(), "ThresNet", 0.5, example_input=x, seed=seed)
    for wrong in ("a", 1.5, None):
        with pytest.raises(ConfigError, match=f"ThresNet: seed: expected an integer, got {wrong!r}"):
            api.prune(Three(), "ThresNet", 0.5, example_input=x, seed=wrong)
