"""Networks without their dead channels: the same outputs, smaller layers, and a reason for all that stays."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.compute.network_inputs import call, tensors_in
from luigi_prune.compute.pruning.compaction.coupling import find_places
from luigi_prune.errors import ConfigError, DamagedResult
from luigi_prune.registry import METHODS
from tests.compute.pruning.kinds_of_layers import Encoder
from tests.compute.pruning.zoo import ZOO, trained_like
from tests.zoo.networks import OWN

STRUCTURED = [name for name, row in METHODS.items() if row.granularity in ("filter", "channel")]
OTHERS = ["ThresNet", "SVDNet", "ALDSNet", "MessiNet"]
CHAINS = ["mlp", "convnet", "concat", "plain"]  # every dead channel of these can go


def pruned(network: nn.Module, example: Tensor, method: str, ratio: float = 0.35) -> api.Pruned:
    targets = torch.arange(len(example)) % 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a ratio that a tiny network cannot meet
        return api.prune(
            network, method, ratio, calibration=[(example, targets)], loss=F.cross_entropy, example_input=example
        )


def assert_same_outputs(masked: nn.Module, small: nn.Module, inputs: object) -> None:
    """Assert that outputs are equal within 1e-5 of the largest, on the example and on inputs that compact never saw."""
    for network in (masked, small):
        network.eval()
    others = (inputs, inputs.flip(0) * 1.7 if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs)
    with torch.no_grad():
        for x in others:
            expected, found = tensors_in(call(masked, x)), tensors_in(call(small, x))
            for one, other in zip(expected, found, strict=True):
                assert one.shape == other.shape
                assert float((one - other).abs().max()) <= 1e-5 * max(1.0, float(one.abs().max()))


@pytest.mark.parametrize("kind", list(ZOO))
@pytest.mark.parametrize("method", STRUCTURED)
def test_every_filter_method_on_every_network(method: str, kind: str) -> None:
    network, x = trained_like(kind)
    result = pruned(network, x, method)
    before = copy.deepcopy(result.network.state_dict())
    small = result.compact()
    assert_same_outputs(result.network, small.network, x)
    assert all(torch.equal(value, before[name]) for name, value in result.network.state_dict().items())
    assert small.size == sum(p.numel() for p in small.network.parameters()) <= result.original_size
    assert small.kept <= result.size
    if kind in CHAINS:
        assert small.left == {}
        if METHODS[method].granularity == "filter":  # single inputs of the network and of flattened maps cannot go
            assert (small.size, small.flops) == (result.size, result.flops)
    else:  # what is stored beyond the kept entries is in layers that the report names, or in those that read them
        assert bool(small.left) or small.size == small.kept


@pytest.mark.parametrize("name", ["attention", "U-Net", "one axis", "three axes", "tied weights", "two inputs", "LSTM"])
@pytest.mark.parametrize("method", ["FilterThresNet", *OTHERS])
def test_other_layers_and_methods(method: str, name: str) -> None:
    specimen = OWN[name]
    torch.manual_seed(0)
    network, x = specimen.build().eval(), specimen.inputs(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = api.prune(network, method, 0.35, calibration=[(x, torch.arange(4))], loss=specimen_loss)
    small = result.compact()
    assert_same_outputs(result.network, small.network, x)
    if method == "FilterThresNet" and name in ("U-Net", "one axis"):
        assert small.size < result.original_size


def specimen_loss(outputs: object, targets: Tensor) -> Tensor:
    return sum((tensor.float() ** 2).mean() for tensor in tensors_in(outputs))  # type: ignore[return-value]


def test_dead_ranks_go() -> None:
    torch.manual_seed(0)
    network, x = trained_like("convnet")
    result = pruned(network, x, "SVDNet", 0.5)
    layer = next(each.name for each in result.layers if each.rank and each.rank > 2)
    result.masks[f"{layer}.encode.weight"] = mask = torch.ones_like(
        result.network.get_parameter(f"{layer}.encode.weight"), dtype=torch.bool
    )
    mask[:2] = False
    with torch.no_grad():
        result.network.get_parameter(f"{layer}.encode.weight")[:2] = 0
    small = result.compact()
    rank = mask.shape[0]
    assert small.network.get_parameter(f"{layer}.encode.weight").shape[0] == rank - 2
    assert small.network.get_parameter(f"{layer}.decode.weight").shape[1] == rank - 2
    assert_same_outputs(result.network, small.network, x)


def test_half_precision_goes_as_far_as_single() -> None:
    network, x = trained_like("convnet")
    result = pruned(network, x, "FilterThresNet")
    result.network.bfloat16()
    assert result.compact(example_input=x.bfloat16()).size == result.size


@pytest.mark.parametrize("align", [4, 8])
def test_widths_stay_multiples(align: int) -> None:
    network, x = trained_like("convnet")
    result = pruned(network, x, "FilterThresNet")
    exact, aligned = result.compact(), result.compact(align=align)
    widths = [layer.kept_filters for layer in aligned.layers[:-1]]
    assert all(width % align == 0 for width in widths)
    assert [-(-layer.kept_filters // align) * align for layer in exact.layers[:-1]] == widths
    assert exact.size < aligned.size
    assert_same_outputs(result.network, aligned.network, x)
    assert set(aligned.left) == {layer.name for layer in exact.layers[:-1] if layer.kept_filters % align}


def test_heads_of_attention_go() -> None:
    torch.manual_seed(1)
    network = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.randn(3, 5, 16)
    result = pruned(network, x, "FilterThresNet", 0.6)
    small = result.compact()
    heads = small.network.self_attn.num_heads
    assert 0 < heads < 4
    assert small.network.self_attn.q_proj.out_features == 4 * heads
    assert_same_outputs(result.network, small.network, x)
    with torch.inference_mode():  # torch's fused path must not be taken
        torch.testing.assert_close(small.network(x), result.network(x), rtol=1e-5, atol=1e-5)


def test_a_residual_sum_loses_the_channels_that_are_dead_in_all_of_it() -> None:
    network, x = trained_like("shared")
    stem = nn.Sequential(network.stem, nn.ReLU())
    residual = AddsTwice(stem).eval()
    masks = {}
    for name in ("stem.0", "one", "two"):
        masks[f"{name}.weight"] = mask = torch.ones_like(residual.get_parameter(f"{name}.weight"), dtype=torch.bool)
        masks[f"{name}.bias"] = bias = torch.ones(12, dtype=torch.bool)
        dead = [1, 5, 7] if name != "two" else [1, 5, 8]
        mask[dead], bias[dead] = False, False
    result = api.prune(residual, "FilterThresNet", 1.0, example_input=x)
    result.masks.update(masks)
    with torch.no_grad():
        for name, mask in masks.items():
            residual_parameter = result.network.get_parameter(name)
            residual_parameter.mul_(mask)
    small = result.compact()
    assert [small.network.get_parameter(f"{name}.weight").shape[0] for name in ("stem.0", "one", "two")] == [10] * 3
    assert {name: count for name, (count, _) in small.left.items()} == {"stem.0": 1, "one": 1, "two": 1}
    assert "two" in small.left["one"][1]
    assert_same_outputs(result.network, small.network, x)


class AddsTwice(nn.Module):
    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem, self.one, self.two = stem, nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + F.relu(self.one(x))
        return self.fc((x + F.relu(self.two(x))).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels shuffled and padded, then flattened with positions first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(10, 4, 1), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x)).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        x = F.relu(self.second(F.pad(x, (0, 0, 0, 0, 2, 0))))
        return self.fc(x.movedim(1, -1).flatten(1))


def test_places_follow_shuffles_pads_and_flattenings() -> None:
    places = find_places(Shuffled().eval(), torch.randn(2, 3, 4, 4)).of
    first, second = places["first", "output"], places["second", "input"]
    assert np.array_equal(second[2:], first.reshape(2, 4).T.reshape(-1))
    assert np.array_equal(places["fc", "input"].reshape(16, 4), np.tile(places["second", "output"], (16, 1)))
    assert not set(second[:2]) & set(first)


class FixedSize(nn.Module):
    """Its code has the width of the hidden layer in it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(x)).view(-1, 12)
        return self.head(F.relu(self.down(x)))


def test_sizes_in_the_code_are_found_and_reported_and_the_rest_goes() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    result = pruned(FixedSize(), x, "FilterThresNet", 0.5)
    small = result.compact()
    assert small.network.up.out_features == 12
    assert small.network.head.in_features < 8
    assert "shape '[-1, 12]' is invalid" in small.left["up"][1]
    assert_same_outputs(result.network, small.network, x)


def test_zeros_that_stay_are_held_in_training() -> None:
    network, x = trained_like("residual")
    small = pruned(network, x, "FilterThresNet", 0.3).compact()
    assert small.masks
    small.network.train()
    optimizer = torch.optim.Adam(small.network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        small.network(x).square().mean().backward()
        optimizer.step()
    assert all(not small.network.get_parameter(name)[~mask].any() for name, mask in small.masks.items())


@pytest.mark.parametrize("kind", ["concat", "grouped", "attention"])
def test_files(kind: str, tmp_path) -> None:
    def fresh() -> tuple[nn.Module, Tensor]:
        return trained_like(kind) if kind in ZOO else (Encoder(), torch.randn(4, 5, 6))

    network, x = fresh()
    small = pruned(network, x, "FilterThresNet", 0.5).compact()
    small.save(tmp_path / "small.h5")
    loaded = api.load(tmp_path / "small.h5", fresh()[0])
    assert (loaded.size, loaded.kept, loaded.layers) == (small.size, small.kept, small.layers)
    assert loaded.masks.keys() == small.masks.keys()
    with torch.no_grad():
        assert torch.equal(loaded.network.eval()(x), small.network.eval()(x))
    with pytest.raises((ConfigError, DamagedResult), match=r"(does not match|does not have)"):
        api.load(tmp_path / "small.h5", nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(ConfigError, match="pass the unpruned architecture"):
        api.load(tmp_path / "small.h5")


@pytest.mark.parametrize("align", [0, -1, 2.0, True, "8"])
def test_align_is_checked(align: object) -> None:
    network, x = trained_like("mlp")
    with pytest.raises(ConfigError, match="align: expected a whole number"):
        pruned(network, x, "FilterThresNet").compact(align=align)  # type: ignore[arg-type]
