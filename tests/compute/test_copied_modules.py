"""Fast copies of modules are those of `copy.deepcopy`."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.api.mask_hooks import held_masks, hold
from luigi_prune.compute.duplicates import duplicate
from tests.compute.pruning.zoo import ZOO


class Odd(nn.Module):
    """Ties, views, shared memory, references to modules and containers in every form."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first
        numbers = torch.arange(8.0)
        for name, value in (("whole", numbers), ("part", numbers[2:5]), ("other", numbers.view(2, 4)),
                            ("strided", torch.rand(3, 4).t()), ("count", torch.tensor(3)), ("none", None)):  # fmt: skip
            self.register_buffer(name, value)
        self.listed = [self.second, {"module": self.first}]
        self.pair, self.empty, self.emptied = (self.first, 1), OrderedDict[str, int](), dict[str, int]()
        self.same = self.emptied
        self.kept = numbers[5:]
        self.first.weight.note = "an attribute"  # type: ignore[attr-defined]
        self.frozen = nn.Parameter(torch.rand(2), requires_grad=False)
        self.columns = nn.Parameter(torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last))
        self.computed = torch.rand(2, requires_grad=True) * 2

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x))


class Careful(nn.Linear):
    """Copies itself."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Careful:
        return Careful(self.in_features, self.out_features, bias=False)


def same(one: Any, other: Any, pairs: dict[int, int]) -> None:
    """Assert that two objects are copies of each other, with the same references inside."""
    assert type(one) is type(other)
    if not isinstance(one, (nn.Module, Tensor, dict, list, set, tuple)):
        return
    if id(one) in pairs:
        assert pairs[id(one)] == id(other)
        return
    if not isinstance(one, tuple):
        assert one is not other
        pairs[id(one)] = id(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
        assert (one.stride(), one.requires_grad, one.dtype) == (other.stride(), other.requires_grad, other.dtype)
        assert one.data_ptr() != other.data_ptr()
    elif isinstance(one, nn.Module):
        same(vars(one), vars(other), pairs)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for left, right in zip(one.values(), other.values(), strict=True):
            same(left, right, pairs)
    elif not isinstance(one, set):
        for left, right in zip(one, other, strict=True):
            same(left, right, pairs)


@pytest.mark.parametrize("name", ZOO)
def test_copies_of_networks(name: str) -> None:
    network = ZOO[name][0]()
    same(network, duplicate(network), {})


def test_copies_share_and_separate_what_deep_copies_do() -> None:
    network = Odd()
    made = duplicate(network)
    same({**vars(network), "computed": None}, {**vars(made), "computed": None}, {})
    assert made.computed.is_leaf
    del network.computed
    deep = copy.deepcopy(network)
    for some in (made, deep):
        some.whole.fill_(7)
        assert bool((some.part == 7).all() & (some.other == 7).all() & (some.kept == 7).all())
        assert some.second.weight is some.first.weight
        assert some.listed[1]["module"] is some.pair[0] is some.again is some.first
        assert not hasattr(some.first.weight, "note")
    assert network.whole.tolist() == list(range(8))


def test_classes_that_copy_themselves_and_memos_are_heeded() -> None:
    network = nn.Sequential(Careful(2, 3), nn.Linear(3, 3), nn.Linear(1, 1))
    weight, last = nn.Parameter(torch.zeros(3, 3)), nn.Linear(1, 2)
    made: Any = duplicate(network, {id(network[1].weight): weight, id(network[2]): last})
    assert made[0].bias is None
    assert made[1].weight is weight
    assert made[2] is last


def test_masks_are_copied_and_nothing_is_held() -> None:
    network = nn.Linear(3, 2)
    hold(network, {"weight": torch.tensor([[True, False, True]] * 2)})
    made = duplicate(network)
    assert torch.equal(held_masks(made)["weight"], held_masks(network)["weight"])
    there = weakref.ref(made)
    del made

    gc.collect()
    assert there() is None
