"""`network.weights` in experiment files: the file it means, what to download, and a study of a given network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from luigi_prune.compute.networks import build
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import ConfigError
from luigi_prune.registry.sources import file_digest
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import run_to_tables, write_experiment

NETWORK = {"name": "lenet300_100", "dataset": "Digits", "outputSize": 10}
COLOUR = {"name": "resnet18", "dataset": "CIFAR10", "outputSize": 10}


@pytest.fixture
def given(tmp_path):
    """Return the file of a network's weights, beside the experiment file."""
    torch.save(build("lenet300_100", (1, 8, 8), 10, seed=9).state_dict(), tmp_path / "given.pth")
    return tmp_path / "given.pth"


def refusal(file):
    with pytest.raises(ConfigError) as error:
        load_experiments(str(file))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_beside_the_experiment_is_found_and_identified_by_its_content(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    file = write_experiment(tmp_path, network={**NETWORK, "weights": "given.pth", "newLayers": "fc3"})
    (experiment,) = load_experiments(str(file))
    assert experiment.network.weights == f"{given.resolve()}@{file_digest(given)}"
    assert experiment.network.new_layers == ("fc3",)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({**NETWORK, "weights": "other.pth"}, "network.weights: there is no file other.pth in "),
        ({**NETWORK, "weights": "."}, "is not the name of a file (.pt, .pth, .bin, .safetensors), which lenet300_100 "),
        ({**NETWORK, "weights": "./"}, "network.weights: ./ is a folder: expected a file"),
        ({**NETWORK, "weights": "IMAGENET1K_V1"}, "'IMAGENET1K_V1' is not the name of a file"),
        ({**NETWORK, "weights": ""}, "network.weights: "),
        ({**NETWORK, "newLayers": ["fc3"]}, "network.newLayers: has no meaning without network.weights"),
    ],
)
def test_what_cannot_be_found_is_refused_at_its_line(network, words, tmp_path):
    message = refusal(write_experiment(tmp_path, network=network))
    assert words in message
    assert message.startswith(f"{tmp_path / 'tiny.yaml'}:")


def test_missing_weights_of_torchvision_are_named_with_address_and_place_and_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "training" / "weights"
    file = write_experiment(tmp_path, network={**COLOUR, "weights": "ResNet18_Weights.IMAGENET1K_V1"})
    settings = yaml.safe_load(file.read_text())
    settings["directories"]["training_data"] = str(tmp_path / "training")
    file.write_text(yaml.safe_dump(settings))
    message = refusal(file)
    assert "download https://download.pytorch.org/models/resnet18-f37072fd.pth to " in message
    assert message.endswith(str(folder / "resnet18-f37072fd.pth"))
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"weights")
    (experiment,) = load_experiments(str(file))
    assert str(experiment.network.weights).startswith(str(folder / "resnet18-f37072fd.pth@"))


def test_an_unknown_name_lists_those_of_the_network_and_of_its_backbone(tmp_path):
    network = {"name": "fcn_resnet50", "dataset": "CIFAR10", "outputSize": 10, "weights": "IMAGENET_V1"}
    message = refusal(write_experiment(tmp_path, network=network))
    assert "weights of torchvision for fcn_resnet50; choose from " in message
    assert "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1" in message
    assert "ResNet50_Weights.IMAGENET1K_V2" in message


def test_zero_epochs_prune_the_given_network_as_it_is(given, tmp_path, caplog):
    file = write_experiment(
        tmp_path,
        experiments__numNets=2,
        network={**NETWORK, "weights": str(given)},
        training__numEpochs=0,
        retraining={"startEpoch": 0, "numEpochs": 1},
        experiments__spacing=[{"type": "manual", "values": [0.5]}],
    )
    titles = run_to_tables(file)
    assert len(titles) > 3
    assert "the 2 networks are one and the same" in caplog.text
    state = torch.load(given, weights_only=True)
    trained = [read_result(path).group("weights") for path in (tmp_path / "results").rglob("TrainBase/net*.h5")]
    assert len(trained) == 2
    for weights in trained:
        assert set(weights) == set(state)
        assert all(np.array_equal(weights[key], state[key].numpy()) for key in state)


def test_a_name_of_two_networks_is_explained_and_a_family_needs_no_row(tmp_path, caplog):
    caplog.set_level("INFO", logger="luigi_prune")
    load_experiments(str(write_experiment(tmp_path, network={**COLOUR, "name": "vgg16_bn"})))
    assert "network.name: is the network of CIFAR papers for images below 64 pixels" in caplog.text
    assert "vgg16_bn_cifar and torchvision:vgg16_bn name one of them" in caplog.text
    (experiment,) = load_experiments(str(write_experiment(tmp_path, network={**COLOUR, "name": "wrn22_3"})))
    assert experiment.network.name == "wrn22_3"


def test_keywords_of_networks_of_other_packages_may_be_words(tmp_path):
    network = {**COLOUR, "name": "resnet50", "kwargs": {"replace_stride_with_dilation": [False, True, True]}}
    (experiment,) = load_experiments(str(write_experiment(tmp_path, network=network)))
    assert experiment.network.kwargs == network["kwargs"]
