"""PFP's order of channels: ties, channels without sensitivity, small activations, and features of the input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.pruning import Rules, count_size
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import padded
from luigi_prune.compute.pruning.problem.records import Problem
from luigi_prune.compute.pruning.scores.channel_order import sums_over_samples
from luigi_prune.compute.pruning.scores.largest_products import EPSILON
from luigi_prune.compute.pruning.scores.sensitivity import channel_max
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from tests.compute.pruning.test_contract import prune_like
from tests.compute.pruning.zoo import trained_like

PFP = ["PFPNet", "PFPNetRand", "PFPNetTop"]


def problem_of(layer: nn.Module, inputs: Tensor, rules: Rules = PAPER) -> Problem:
    network = nn.Sequential(layer)
    layers = [Layer("0", layer, "0.weight", False, False)]
    masks = {"0.weight": torch.ones_like(layer.get_parameter("weight"), dtype=torch.bool)}
    targets = torch.zeros(len(inputs), dtype=torch.long)
    return Problem(network, layers, masks, {}, inputs, [(inputs, targets)], F.cross_entropy, 0, rules)


def sensitivities_by_definition(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return per sample and channel the largest share in a sum, over filters, patches, entries and weights' signs.

    A sum that is nearly 0 compared with the sample's largest one has no shares.
    """
    weight = layer.get_parameter("weight").detach()
    if isinstance(layer, nn.Conv2d):
        image = padded(Layer("", layer, "", False, False), inputs)
        values = F.unfold(image, layer.kernel_size, layer.dilation, 0, layer.stride)
    elif isinstance(layer, nn.Conv1d):
        values = F.unfold(inputs[:, :, None], (1, *layer.kernel_size), 1, (0, *layer.padding), (1, *layer.stride))
    else:
        values = inputs[:, :, None]
    found = torch.zeros(len(inputs), weight.shape[1])
    for half in (weight.clamp_min(0), (-weight).clamp_min(0)):
        products = half.flatten(1)[None, :, :, None] * values[:, None]  # (samples, filters, entries, patches)
        sums = products.sum(2, keepdim=True)
        shares = (products / sums).where(sums > EPSILON * sums.amax((1, 3), keepdim=True), 0)
        found = found.maximum(shares.amax((1, 3)).unflatten(1, (weight.shape[1], -1)).amax(2))
    return found


@pytest.mark.parametrize(
    ("make", "seed"),
    [
        (partial(nn.Conv2d, 5, 7, 3, padding=1), 0),
        (partial(nn.Conv2d, 5, 4, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), 0),
        # the only share of a whole sum, of 4e-8 of the sample's largest
        (partial(nn.Conv2d, 5, 4, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), 817),
        (partial(nn.Conv2d, 5, 6, 1, stride=2), 0),
        (partial(nn.Conv1d, 5, 6, 3, stride=2, padding=1), 0),
        (partial(nn.Linear, 5, 8), 0),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_sums_over_samples_are_those_of_the_definition(make: Callable[[], nn.Module], seed: int, signed: bool) -> None:
    torch.manual_seed(seed)
    layer, generator = make(), torch.Generator().manual_seed(0)
    shape = (40, 5, 6, 7) if isinstance(layer, nn.Conv2d) else (40, 5, 9) if isinstance(layer, nn.Conv1d) else (40, 5)
    inputs = torch.randn(shape, generator=generator)
    inputs = inputs if signed else inputs.relu()
    channels = torch.tensor([0, 1, 4])
    (found,) = sums_over_samples(problem_of(layer, inputs), [channels])
    parts = [inputs.clamp_min(0), (-inputs).clamp_min(0)]
    wanted = torch.stack([sensitivities_by_definition(layer, part).double().sum(0) for part in parts]).sum(0)
    assert torch.allclose(found[channels], wanted[channels], rtol=1e-5)
    assert not found[[2, 3]].any()


def test_a_channel_that_is_a_head_has_the_largest_share_of_its_features() -> None:
    torch.manual_seed(0)
    module, inputs = nn.Linear(6, 8), torch.rand(10, 6)
    problem = problem_of(module, inputs)
    problem.layers[0] = Layer("0", module, "0.weight", False, False, heads=3, head_axis=1)
    (found,) = sums_over_samples(problem, [torch.tensor([0, 2])])
    wanted = sensitivities_by_definition(module, inputs).unflatten(1, (3, 2)).amax(2).double().sum(0)
    assert torch.allclose(found[[0, 2]], wanted[[0, 2]], rtol=1e-5)


@pytest.mark.parametrize("method", ["SiPPNet", "SiPPNetRand", "PFPNet"])
def test_the_scale_of_inputs_of_other_layers_decides_nothing(method: str) -> None:
    torch.manual_seed(0)
    body = [nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 8, 3, bias=False), nn.Flatten(), nn.Linear(48, 4)]
    network, inputs = nn.Sequential(*body), torch.rand(4, 3, 8)
    small = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in small[0].parameters():
            parameter.mul_(2.0**-40)
    one, other = (prune_like(each, method, 0.6, inputs).masks for each in (network, small))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def lone(channel: int, channels: int = 4) -> Tensor:
    """Return an input of which one channel alone is not zero: its share is 1."""
    return F.one_hot(torch.tensor([channel]), channels).float()


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_the_sum_over_samples_decides_between_channels_of_equal_sensitivity(order: list[int]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        layer.weight.abs_()
    seen = [lone(channel) for channel in range(4)]
    seen += [lone(channel) for place, channel in enumerate(order) for _ in range(place)]
    inputs = torch.cat(seen)
    (paper,), (reference,) = (channel_max(problem_of(layer, inputs, rules)) for rules in (PAPER, REFERENCE))
    assert paper.argsort().tolist() == order
    assert reference.argsort().tolist() == [0, 1, 2, 3]
    for score in (paper, reference):
        assert torch.allclose(score, torch.ones_like(score), rtol=1e-8, atol=0)


def half_dead() -> tuple[nn.Module, Tensor]:
    """Return a network in which half of the second layer's inputs are 0 for every sample, and its input."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)).eval()
    with torch.no_grad():
        network.get_parameter("0.bias")[::2] = -100
    return network, torch.randn(16, 8)


@pytest.mark.parametrize("method", PFP)
def test_channels_without_sensitivity_go_first_one_by_one(method: str) -> None:
    network, example = half_dead()
    with torch.no_grad():
        active = (network[1](network[0](example)) != 0).any(0)  # type: ignore[index]
    silent = []
    for ratio in (0.96, 0.9, 0.84, 0.78, 0.72, 0.6):
        pruned = prune_like(network, method, ratio, example)
        assert pruned.size / pruned.original_size == pytest.approx(ratio, rel=0.1)
        columns = (pruned.network.get_parameter("2.weight") != 0).any(0)
        silent.append(int(columns[~active].sum()))
        if method == "PFPNet":  # others draw
            assert bool(columns[active].all())
    assert silent == sorted(silent, reverse=True)
    assert len(set(silent)) >= 4


@pytest.mark.parametrize("method", [*PFP, "SiPPNet", "SiPPNetRand", "SiPPNetHybrid"])
@pytest.mark.parametrize("exponent", [-30, 20])
def test_the_scale_of_weights_and_activations_has_no_effect(method: str, exponent: int) -> None:
    """Powers of two, so that nothing is rounded differently."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, 12, bias=False), nn.ReLU(), nn.Linear(12, 10, bias=False)),
    ).eval()
    example = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            parameter.mul_(2.0 ** (exponent if name in ("0.weight", "5.weight") else 0))
    one, other = (prune_like(each, method, 0.4, example) for each in (network, scaled))
    assert one.masks.keys() == other.masks.keys()
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    assert one.size < 0.6 * count_size(network)


@pytest.mark.parametrize("method", [*PFP, "FilterUniNet", "ThiNet"])
@pytest.mark.parametrize(("kind", "layer"), [("mlp", "fc1"), ("convnet", "conv1"), ("plain", "features.0")])
def test_only_features_of_a_vector_are_cut_from_the_input(method: str, kind: str, layer: str) -> None:
    network, example = trained_like(kind)
    pruned = prune_like(network, method, 0.2, example)
    columns = (pruned.network.get_parameter(f"{layer}.weight") != 0).any(0)
    columns = columns.view(len(columns), -1).any(1)
    assert bool(columns.all()) == (kind != "mlp" or method not in PFP)


def test_positions_of_a_sequence_keep_all_features() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
    vectors, sequences = torch.randn(8, 6), torch.randn(8, 4, 6)
    kept = []
    for example in (vectors, sequences):
        targets = torch.zeros(example.shape[:-1], dtype=torch.long)
        batches = [(example, targets)]
        loss = lambda out, target: F.cross_entropy(out.flatten(0, -2), target.flatten())  # noqa: E731
        pruned = prune_like(network, "PFPNet", 0.2, example, calibration=batches, loss=loss)
        kept.append(int((pruned.network.get_parameter("0.weight") != 0).any(0).sum()))
    assert kept[0] < 6
    assert kept[1] == 6


def test_a_layer_that_no_sample_reaches_is_kept_and_named() -> None:
    network, example = half_dead()
    with torch.no_grad():
        network.get_parameter("0.bias").fill_(-100)
    pruned = prune_like(network, "PFPNet", 0.7, example)
    assert "no calibration sample reaches 2: all channels are kept" in pruned.warnings
    assert bool((pruned.network.get_parameter("2.weight") != 0).any(0).all())
