"""Zeros that are set, found and counted by bits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luigi_prune.compute.zeros import (
    all_true,
    any_true,
    both,
    count_nonzero,
    count_true,
    keep_only,
    keep_vectors,
    nonzero,
    sums,
)
from tests.compute.pretended_device import pretended_device

NUMBERS = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, -1e-45])
)  # 1e-45: the least float32


@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=40))
def test_removed_entries_become_zero_whatever_they_were(entries: list[tuple[float, bool]]) -> None:
    value = torch.tensor([number for number, _ in entries])
    kept = torch.tensor([keeps for _, keeps in entries], dtype=torch.bool)
    expected = value.masked_fill(~kept, 0)
    keep_only(value, kept)
    assert torch.equal(value.view(torch.int32), expected.view(torch.int32))  # NaN is NaN, and no zero is negative


@given(st.lists(NUMBERS, max_size=40))
def test_what_is_not_zero(entries: list[float]) -> None:
    value = torch.tensor(entries)
    expected = [number != 0 for number in value.tolist()]  # NaN is not, -0.0 is
    assert nonzero(value).tolist() == expected
    assert count_nonzero(value) == count_true(nonzero(value)) == sum(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128])
def test_every_kind_of_number(dtype: torch.dtype) -> None:
    value = torch.tensor([1.0, torch.inf, -2.0, 0.0]).to(dtype)
    keep_only(value, torch.tensor([True, False, True, True]))
    assert value.tolist() == [1, 0, -2, 0]


def test_in_place_whatever_the_layout_and_beside_autograd() -> None:
    weight = torch.nn.Parameter(torch.rand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    kept = torch.rand(4, 3, 2, 2) < 0.5
    before = weight.detach().clone()
    keep_only(weight, kept)
    assert torch.equal(weight.detach(), before * kept)
    assert weight.is_leaf
    assert weight.requires_grad
    part = torch.arange(12.0).view(3, 4)[:, ::2]
    keep_only(part, torch.tensor([[True, False]] * 3))
    assert part.tolist() == [[0, 0], [4, 0], [8, 0]]


@pytest.mark.parametrize("on_device", [False, True])
def test_many_small_tensors_at_once(on_device: bool) -> None:
    """On a device in a few operations for all, with the results of a loop."""
    with pretended_device() as device:
        place = device if on_device else torch.device("cpu")
        generator = torch.Generator().manual_seed(0)
        numbers = [torch.randn(length, generator=generator) for length in (1, 3, 5)]
        kept = [value > 0 for value in numbers]
        values = [*(value.to(place) for value in numbers), numbers[1].double().to(place)]
        values[1][0] = torch.nan
        there = [mask.to(place) for mask in (*kept, kept[1])]
        keep_vectors(values, there)
        for value, mask in zip(values, there, strict=True):
            assert not value.cpu()[~mask.cpu()].any()
            assert not value.cpu().signbit()[~mask.cpu()].any()  # no minus zero
        assert torch.equal(values[2].cpu(), numbers[2] * kept[2])
        joined = both(there[:3], [mask.flip(0) for mask in there[:3]])
        assert all(torch.equal(one.cpu(), mask & mask.flip(0)) for one, mask in zip(joined, kept, strict=True))
        assert any_true(there) == [bool(mask.any()) for mask in (*kept, kept[1])]
        assert any_true([]) == []
        assert all_true(mask | ~mask for mask in there)
        assert not all_true(mask & ~mask for mask in there)
        infinite = [torch.isfinite(total).item() for total in sums([values[2], values[2] / 0])]
        assert infinite == [True, False]
