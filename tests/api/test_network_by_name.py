"""`api.network`: networks by name outside of experiments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from luigi_prune import api, registry
from luigi_prune.compute.networks import build
from luigi_prune.errors import ConfigError

PARTS = """
from torch import nn

def net(input_shape, output_size, width, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], width, bias=bias), nn.Linear(width, output_size))

def number(input_shape, output_size):
    return output_size

def fails(input_shape, output_size):
    raise ValueError("no such shape")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(name for name, row in registry.NETWORKS.items() if row.smallest <= 16))
def test_every_network_is_that_of_an_experiment_with_the_same_seed(name: str) -> None:
    network = api.network(name, input_shape=(1, 16, 16), outputs=3, seed=5)
    expected = build(name, (1, 16, 16), 3, seed=5).state_dict()
    assert {key: value.tolist() for key, value in network.state_dict().items()} == {
        key: value.tolist() for key, value in expected.items()
    }


def test_without_a_seed_the_weights_follow_the_global_generator() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat(
            [api.network("resnet8", (3, 8, 8), 4).fc.weight, api.network("resnet8", [3, 8, 8], 4).fc.weight]
        )

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
    assert not torch.equal(*first.chunk(2))


@pytest.mark.filterwarnings("ignore:.*cannot be met on this network")
def test_a_network_of_a_module_in_the_working_directory_with_keywords_and_its_pruning() -> None:
    network = api.network("own_nets:net", (6,), 3, width=20, bias=False)
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(20, 6), (3, 20), (3,)]
    assert api.prune(network, "WT", 0.5, example_input=torch.randn(2, 6)).size < 123


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "kwargs", "words"),
    [
        (
            "resnet57",
            (3, 32, 32),
            10,
            {},
            "a residual network for small images has 6 n + 2 layers; did you mean 'resnet56'?",
        ),
        ("wrn29_2", (3, 32, 32), 10, {}, "has 6 n + 4 layers"),
        ("resnet56", (3, 4, 32), 10, {}, "resnet56 needs images of at least 5x5, got 4x32"),
        ("resnet56_basic", (3, 4, 32), 10, {}, "resnet56_basic needs images of at least 5x5, got 4x32"),
        ("resnet56", (32, 32), 10, {}, "expected images (channels, height, width), got inputs of shape (32, 32)"),
        ("resnet56", (), 10, {}, "input_shape: expected positive integers without the batch axis, got ()"),
        ("resnet56", (3, 32.0, 32), 10, {}, "input_shape: expected positive integers"),
        ("resnet56", (3, -32, 32), 10, {}, "input_shape: expected positive integers"),
        ("resnet56", (3, 32, 32), 0, {}, "outputs: expected a positive integer, got 0"),
        ("resnet56", (3, 32, 32), True, {}, "outputs: expected a positive integer, got True"),
        ("resnet56", (3, 32, 32), 10, {"width": 2}, "resnet56 has no keyword 'width'; it has none"),
        ("own_nets:net", (6,), 3, {"width": 2, "bia": 2}, "net has no keyword 'bia'; did you mean 'bias'?"),
        ("own_nets:net", (6,), 3, {}, "net needs the keyword 'width'"),
        ("own_nets:nett", (6,), 3, {}, "own_nets.py defines no 'nett'; did you mean 'net'?"),
        ("no_nets:net", (6,), 3, {}, "there is no module 'no_nets'"),
        ("own_nets:number", (6,), 3, {}, "expected a torch.nn.Module, got a int"),
        ("own_nets:fails", (6,), 3, {}, "ValueError: no such shape"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, shape, outputs, kwargs, words: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        api.network(name, shape, outputs, **kwargs)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_given_weights_are_those_of_the_file_but_for_new_layers(folder: Path) -> None:
    given = api.network("resnet8", (3, 8, 8), 4, seed=1)
    torch.save(given.state_dict(), folder / "user@home.pth")
    network = api.network("resnet8", (3, 8, 8), 2, seed=2, weights=folder / "user@home.pth", new_layers=["fc"])
    assert torch.equal(network.conv1.weight, given.conv1.weight)
    assert network.fc.weight.shape == (2, 64)
    with pytest.raises(ConfigError, match=r"fc.weight is \(4, 64\) there"):
        api.network("resnet8", (3, 8, 8), 2, weights=folder / "user@home.pth")
    with pytest.raises(ConfigError, match="new_layers has no meaning without weights"):
        api.network("resnet8", (3, 8, 8), 2, new_layers=["fc"])
