"""Weights from a file: what is loaded, and what is refused before any is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luigi_prune.compute.networks import build, load_weights
from luigi_prune.errors import ConfigError
from luigi_prune.registry.sources import file_digest


@pytest.fixture
def file(tmp_path):
    torch.save(build("resnet8", (3, 8, 8), 10, seed=1).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def same(network, other):
    first, second = network.state_dict(), other.state_dict()
    return {key for key in first if torch.equal(first[key], second[key])}


@pytest.mark.parametrize("wrapped", ["plain", "container", "parallel", "safetensors"])
def test_a_file_of_any_usual_form_gives_its_network(wrapped, file, tmp_path):
    source = build("resnet8", (3, 8, 8), 10, seed=1)
    state = source.state_dict()
    if wrapped == "container":
        torch.save({"epoch": 3, "state_dict": state}, file)
    elif wrapped == "parallel":
        torch.save({f"module.{key}": value for key, value in state.items()}, file)
    elif wrapped == "safetensors":
        file = tmp_path / "net.safetensors"
        pytest.importorskip("safetensors.torch").save_file(state, file)
    network = build("resnet8", (3, 8, 8), 10, seed=2)
    load_weights(network, f"{file}@{file_digest(file)}")
    assert same(network, source) == set(state)


def test_new_layers_keep_their_weights_of_any_shape(file, caplog):
    source = build("resnet8", (3, 8, 8), 10, seed=1)
    network, untouched = build("resnet8", (3, 8, 8), 4, seed=2), build("resnet8", (3, 8, 8), 4, seed=2)
    load_weights(network, str(file), ["fc"])
    assert torch.equal(network.fc.weight, untouched.fc.weight)
    assert torch.equal(network.conv1.weight, source.conv1.weight)
    assert "network.newLayers: fc keep random weights" in caplog.text


def test_a_file_of_a_backbone_is_recognised_and_old_files_lack_counters(tmp_path):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
            self.head = nn.Conv2d(2, 3, 1)

    network = Whole()
    state = {f"{key}": value + 1 for key, value in network.backbone.state_dict().items() if "num_batches" not in key}
    torch.save({**state, "fc.weight": torch.zeros(2, 2)}, tmp_path / "backbone.pt")
    load_weights(network, str(tmp_path / "backbone.pt"), ["head", "fc"])
    assert torch.equal(network.backbone[0].weight, state["0.weight"])


@pytest.mark.parametrize(
    ("change", "new_layers", "words"),
    [
        ({}, ["fd"], "network.newLayers: there is no layer 'fd'; did you mean 'fc'?"),
        ({"fc.weight": torch.zeros(2, 64)}, [], "fc.weight is (2, 64) there, (10, 64) here; network.newLayers: [fc]"),
        ({"fc.weight": None}, [], "it lacks fc.weight; network.newLayers: [fc] leaves them out"),
        ({"head.weight": torch.zeros(1)}, [], "it has head.weight, which the network does not have"),
        ({"fc.weight": "text"}, [], "holds no state dictionary: expected tensors by name"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line_and_nothing_is_loaded(change, new_layers, words, file):
    state = {**build("resnet8", (3, 8, 8), 10, seed=1).state_dict(), **change}
    torch.save({key: value for key, value in state.items() if value is not None}, file)
    network, untouched = build("resnet8", (3, 8, 8), 10, seed=2), build("resnet8", (3, 8, 8), 10, seed=2)
    with pytest.raises(ConfigError) as error:
        load_weights(network, str(file), new_layers)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert same(network, untouched) == set(network.state_dict())


def test_a_missing_changed_or_unreadable_file_is_refused_in_one_line(file):
    network = build("resnet8", (3, 8, 8), 10, seed=2)
    with pytest.raises(ConfigError, match=r"there is no file .*other.pth"):
        load_weights(network, f"{file.with_name('other.pth')}@0123456789abcdef")
    with pytest.raises(ConfigError, match="has changed since this run was planned"):
        load_weights(network, f"{file}@0123456789abcdef")
    torch.save(network, file)
    with pytest.raises(ConfigError, match=r"cannot be read as a state dictionary .*more than tensors") as error:
        load_weights(network, str(file))
    assert "\n" not in str(error.value)
    file.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="cannot be read as a state dictionary"):
        load_weights(network, str(file))
