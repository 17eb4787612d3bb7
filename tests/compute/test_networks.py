import re
from pathlib import Path

import pytest
import torch

from luigi_prune import registry
from luigi_prune.compute.named import resolve
from luigi_prune.compute.networks import InputTooSmall, build
from luigi_prune.compute.pruning import count_flops, layer_budgets
from luigi_prune.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
ROW = re.compile(r"\| `(\w+)` \| (\d+)x(\d+)x(\d+) \| ([\d,]+) \| ([\d,]+) \| (\d+) \|")
SIZES = [
    tuple(int(text.replace(",", "")) if text[0].isdigit() else text for text in row)
    for row in ROW.findall(PAGE.read_text())
]


@pytest.mark.parametrize("row", SIZES, ids=[f"{row[0]}-{row[1]}x{row[2]}x{row[3]}" for row in SIZES])
def test_the_page_of_networks_has_the_parameters_multiply_adds_and_layers_of_every_network(row):
    name, *shape, parameters, multiply_adds, layers = row
    network = build(name, tuple(shape), 10, seed=0).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert count_flops(network, torch.zeros(1, *shape)) == multiply_adds
    assert len(layer_budgets(network)) == layers


def test_the_page_of_networks_has_every_network():
    assert {row[0] for row in SIZES} == set(registry.NETWORKS)


@pytest.mark.parametrize(
    ("name", "input_shape", "parameters", "multiply_adds"),
    [
        ("lenet5", (1, 32, 32), 81_194, 274_656),
        ("lenet5", (3, 32, 32), 81_302, 371_856),
        ("cnn5", (3, 32, 32), 1_557_066, 228_267_008),
        ("resnet44", (3, 32, 32), 684_058, 100_583_936),
        ("resnet56", (3, 32, 32), 869_530, 127_322_624),
        ("resnet110", (3, 32, 32), 1_704_154, 247_646_720),
    ],
)
def test_networks_that_bear_a_name_of_torchprune_are_its_networks(name, input_shape, parameters, multiply_adds):
    assert (name, *input_shape, parameters, multiply_adds) in [row[:6] for row in SIZES]


def test_a_compiled_network_is_used_without_its_wrapper(monkeypatch, caplog):
    inner = torch.nn.Linear(4, 2)
    built = torch.nn.Sequential(torch.compile(inner))
    monkeypatch.setattr("luigi_prune.compute.networks.resolve", lambda path: lambda *_: torch.compile(built))
    network = build("lenet5", (4,), 2, seed=0)
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert type(network[0]) is torch.nn.Linear
    assert torch.equal(network[0].weight, inner.weight)
    assert "lenet5: used without torch.compile" in caplog.text


@pytest.mark.parametrize("name", sorted(registry.NETWORKS))
def test_every_network_of_the_catalogue_gives_the_outputs_asked_for(name):
    network = build(name, (1, 16, 16), 7, seed=0).eval()
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize("name", ["lenet300_100", "cnn5", "cnn5_plain", "resnet8", "resnet44"])
def test_digits_are_large_enough(name):
    network = build(name, (1, 8, 8), 10, seed=0).eval()
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "smallest"), [(name, row.smallest) for name, row in registry.NETWORKS.items() if row.smallest > 1]
)
def test_an_input_that_is_too_small_is_refused_with_the_smallest_size(name, smallest):
    network = build(name, (1, smallest, smallest), 10, seed=0)
    assert network(torch.zeros(1, 1, smallest, smallest)).isfinite().all()  # in training, a single sample
    with pytest.raises(InputTooSmall, match=f"at least {smallest}x{smallest}, got {smallest - 1}x20") as caught:
        build(name, (1, smallest - 1, 20), 10, seed=0)
    assert isinstance(caught.value, ConfigError)


def test_a_seed_means_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first, again, other = (build("resnet8", (1, 8, 8), 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_shape_of_resnet_stages():
    network = build("resnet20", (3, 32, 32), 10, seed=0)
    x, sizes = network.relu1(network.bn1(network.conv1(torch.zeros(1, 3, 32, 32)))), []
    for stage in (network.stage1, network.stage2, network.stage3):
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 19 + 2


def test_paths_of_the_catalogue_name_builders():
    assert all(callable(resolve(row.path)) for row in registry.NETWORKS.values())
    with pytest.raises(ConfigError, match="did you mean 'resnet"):
        build("resnet21", (3, 32, 32), 10, seed=0)
