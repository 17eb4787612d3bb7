import pytest
import torch

from luigi_prune import registry
from luigi_prune.compute.named import resolve
from luigi_prune.compute.networks import InputTooSmall, build
from luigi_prune.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "input_shape", "parameters"),
    [
        ("lenet300_100", (1, 28, 28), 266_610),
        ("lenet5", (1, 28, 28), 431_080),
        ("cnn5", (3, 32, 32), 1_672_522),
        ("resnet8", (3, 32, 32), 78_042),
        ("resnet20", (3, 32, 32), 272_474),
        ("resnet56", (3, 32, 32), 855_770),
        ("resnet110", (3, 32, 32), 1_730_714),
    ],
)
def test_parameter_counts(name, input_shape, parameters):
    network = build(name, input_shape, 10, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


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


@pytest.mark.parametrize("name", ["lenet300_100", "cnn5", "resnet8"])
def test_digits_are_large_enough(name):
    network = build(name, (1, 8, 8), 10, seed=0).eval()
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(("name", "smallest"), [("lenet5", 16), ("cnn5", 8), ("resnet20", 5)])
def test_an_input_that_is_too_small_is_refused_with_the_smallest_size(name, smallest):
    build(name, (1, smallest, smallest), 10, seed=0)
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
