"""Zeros that are set, found and counted by bits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luigi_prune.compute.zeros import count_nonzero, count_true, keep_only, nonzero

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
