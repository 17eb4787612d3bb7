"""What runs through numpy on a CPU has a form for tensors on a device: both choose the same, ties included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luigi_prune.compute.pruning.allocations.by_score import _ranks, ranks_by_tensors
from luigi_prune.compute.pruning.allocations.sampling_error import _pairs, _tails, tails_by_tensors
from luigi_prune.compute.pruning.problem.records import LayerDraws
from luigi_prune.compute.pruning.scores.largest_means import (
    raise_by_convolution,
    raise_by_products,
    raise_by_tensors,
)
from luigi_prune.compute.pruning.selection.drawing import _draw_singly, draw_singly_by_tensors
from luigi_prune.compute.pruning.selection.top_and_sample import (
    _best,
    best_by_tensors,
    best_of_rows,
    best_of_rows_by_tensors,
)
from luigi_prune.compute.zeros import count_nonzero, counts_nonzero, equal, to_numbers
from tests.compute.pretended_device import pretended_device

# Few different numbers, so that most of them are equal to others; minus infinity is what dead units have.
NUMBERS = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 0.5, 0.5, 1.0, 3.0])
quick = settings(max_examples=60, deadline=None)


@quick
@given(st.lists(NUMBERS, min_size=1, max_size=30), st.integers(0, 32))
def test_the_best_of_a_vector(numbers: list[float], count: int) -> None:
    score = torch.tensor(numbers)
    assert torch.equal(best_by_tensors(score, count), _best(score, min(count, len(score))))


@quick
@given(st.integers(1, 5), st.integers(1, 7), st.data())
def test_the_best_of_rows(rows: int, columns: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(NUMBERS, min_size=rows * columns, max_size=rows * columns))
    counts = torch.tensor(data.draw(st.lists(st.integers(0, columns), min_size=rows, max_size=rows)))
    values = torch.tensor(numbers).view(rows, columns)
    kept = best_of_rows_by_tensors(values, counts)
    assert torch.equal(kept, best_of_rows(values, counts))
    assert torch.equal(kept.sum(1), counts)


@quick
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=12), min_size=1, max_size=4), st.data())
def test_ranks_over_all_layers(numbers: list[list[float]], data: st.DataObject) -> None:
    vectors = [torch.tensor(layer) for layer in numbers]
    k = data.draw(st.integers(1, sum(map(len, vectors))))
    above, same = ranks_by_tensors(vectors)(k)
    expected_above, expected_same = _ranks([vector.numpy() for vector in vectors])(k)
    assert above == expected_above
    missing = k - sum(above)
    for found, expected in zip(same, expected_same, strict=True):  # numpy counts ties until there are enough
        assert min(missing, found) == min(missing, expected)
        missing -= min(missing, found)
    assert missing == 0


@quick
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 40))
def test_draws_of_a_row_one_by_one(seed: int, rows: int, units: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(rows, units, generator=generator, dtype=torch.float64) ** 4
    weight[weight < 0.01] = 0
    weight[:, 0] += 0.1
    probability = weight / weight.sum(1, keepdim=True)
    drawn = torch.randint(0, 60, (rows,), generator=generator)
    part = next(iter(LayerDraws(generator, rows).parts([slice(None)])))
    times = draw_singly_by_tensors(probability, drawn, part)
    assert torch.equal(times, _draw_singly(probability, drawn, part))
    assert torch.equal(times.sum(1), drawn.double())
    assert not bool(times[probability == 0].any())


@quick
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_sums_of_what_is_left(seed: int, filters: int, entries: int, keep: bool) -> None:
    score = torch.rand(filters, entries, generator=torch.Generator().manual_seed(seed)) - 0.5
    expected, found = _tails(score, keep=keep), tails_by_tensors(_pairs(score).flatten(0, 1))
    for k in range(entries + 1):
        kept = torch.full((2 * filters,), k)
        torch.testing.assert_close(found(kept), expected(kept), rtol=1e-12, atol=1e-12)


def test_numbers_are_read_from_a_device_together_and_from_the_cpu_one_by_one() -> None:
    def numbers(tensors: list[torch.Tensor], looked_at: list[int]):
        for index, tensor in enumerate(tensors):
            looked_at.append(index)
            yield tensor

    flags, looked_at = [torch.tensor(True), torch.tensor(False)], []
    assert any(to_numbers(numbers(flags, looked_at)))
    assert looked_at == [0]
    values = [torch.tensor([0.0, 1.0, 2.0]), torch.zeros(4)]
    with pretended_device() as device:
        there = [value.to(device) for value in values]
        assert list(to_numbers(flag.to(device) for flag in flags)) == [True, False]
        assert counts_nonzero(there) == counts_nonzero(values) == [2, 0]
        assert count_nonzero(there[0]) == 2
        assert list(equal(zip(there, [there[0].clone(), there[1] + 1], strict=True))) == [True, False]
    assert list(to_numbers([])) == list(equal([])) == counts_nonzero([]) == []


@pytest.mark.parametrize(("size", "stride", "dilation"), [(7, 1, 1), (8, 2, 1), (9, 1, 2), (3, 1, 1)])
def test_largest_means_are_those_of_unfolded_patches(size: int, stride: int, dilation: int) -> None:
    module, seeded = nn.Conv2d(3, 5, 3, stride, 0, dilation), torch.Generator().manual_seed(size)
    image = torch.rand(4, 3, size, size, generator=seeded)
    entries = F.unfold(image, 3, dilation, 0, stride)
    side = math.isqrt(entries.shape[2])
    factors = [torch.rand(4, 5, side, side, generator=seeded) for _ in range(2)]
    flat = [of_sign.flatten(2) for of_sign in factors]
    start = [torch.rand(5, 27, generator=seeded) * side**2 / 2 for _ in flat]
    expected = [
        torch.einsum("sfp,sep->sfe", of_sign, entries).amax(0).maximum(known)
        for of_sign, known in zip(flat, start, strict=True)
    ]
    assert all(bool((found == known).any()) for found, known in zip(expected, start, strict=True))
    ways = [
        lambda best: raise_by_convolution(best, module, image, factors),
        lambda best: raise_by_products(best, entries, flat),
        lambda best: raise_by_tensors(best, entries, flat),
    ]
    for way in ways:
        best = [known.clone() for known in start]
        way(best)
        torch.testing.assert_close(best, expected)
