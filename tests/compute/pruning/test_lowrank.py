"""Decomposed layers: exact at full rank, in all foldings, and rebuilt without knowing the method."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from luigi_prune.compute.pruning import count_flops, restore
from luigi_prune.compute.pruning.low_rank import decompose, structure_of
from luigi_prune.compute.pruning.low_rank.factors import factorise
from luigi_prune.compute.pruning.low_rank.foldings import cost_per_rank, fold, full_rank, recompose
from luigi_prune.compute.pruning.problem.records import Decomposition
from luigi_prune.errors import DamagedResult
from tests.compute.pruning.zoo import Plain, images

CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (1, 3), "stride": 2, "padding": (0, 1), "bias": False},
    {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("folding", [0, 1, 2, 3])
@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_full_rank_changes_nothing(settings: dict[str, object], folding: int, groups: int) -> None:
    layer = nn.Conv2d(6, 5, **settings)  # type: ignore[arg-type]
    shape = tuple(layer.weight.shape)
    rank = full_rank(shape, groups, folding)  # type: ignore[arg-type]
    new, x = decompose(layer, Decomposition(rank, groups, folding)), torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        assert torch.allclose(new(x), layer(x), atol=1e-5)
    encode, decode = new.get_submodule("encode"), new.get_submodule("decode")
    weights = encode.get_parameter("weight").numel() + decode.get_parameter("weight").numel()
    assert weights == rank * cost_per_rank(shape, groups, folding)  # type: ignore[arg-type]


@pytest.mark.parametrize("folding", [0, 1, 2, 3])
def test_the_error_is_the_largest_dropped_singular_value(folding: int) -> None:
    weight = torch.randn(7, 6, 3, 3, dtype=torch.float64)
    encoder, decoder = factorise(weight, 4, 1, folding)
    error = fold(weight - recompose(encoder, decoder, 1), folding)
    values = torch.linalg.svdvals(fold(weight, folding))
    assert float(torch.linalg.matrix_norm(error, 2)) == pytest.approx(float(values[4]), rel=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_linear_layers_over_sequences(groups: int) -> None:
    layer, x = nn.Linear(8, 5), torch.randn(2, 7, 8)
    rank = full_rank((5, 8, 1, 1), groups, 0)
    new = decompose(layer, Decomposition(rank, groups))
    with torch.no_grad():
        assert torch.allclose(new(x), layer(x), atol=1e-5)
    masks = {name: value != 0 for name, value in new.named_parameters()}
    assert count_flops(new, x, masks) == 7 * rank * (8 + 5 * groups)


def test_a_structure_and_a_state_dict_rebuild_the_network() -> None:
    network, x = Plain().eval(), images()
    network.features[3] = decompose(network.features[3], Decomposition(3, 2, 1))
    network.classifier[0] = decompose(network.classifier[0], Decomposition(5))
    structure = structure_of(network)
    assert structure[0] == {"layer": "features.3", "rank": 3, "groups": 2, "folding": 1}
    fresh = restore(Plain().eval(), structure)
    fresh.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(x), network(x))
        assert torch.equal(copy.deepcopy(network)(x), network(x))
    plain = Plain()
    assert restore(plain, []) is plain


def test_a_structure_of_another_network_is_damage() -> None:
    for layer in ("features.9", "features.1", "nothing"):
        with pytest.raises(DamagedResult, match=layer):
            restore(Plain(), [{"layer": layer, "rank": 1, "groups": 1, "folding": 0}])
    with pytest.raises(DamagedResult, match="features"):
        restore(Plain(), [{"layer": "features.0", "rank": 1}])
