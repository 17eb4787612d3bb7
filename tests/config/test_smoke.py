"""Experiments shrunk to minutes: valid for every packaged paper, and synthetic data of every kind pass transforms."""

from __future__ import annotations

from pathlib import Path

import pytest

import luigi_prune
from luigi_prune.compute.data import load_splits, load_test
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.config.ratios import keep_ratios
from luigi_prune.registry import find
from luigi_prune.workflow.tasks import RunExperiment
from tests.experiments import build, write_experiment

PACKAGED = Path(luigi_prune.__file__).parent / "configs"
FILES = sorted(
    str(path.relative_to(PACKAGED)) for path in PACKAGED.glob("paper/**/*.yaml") if "\nnetwork:" in path.read_text()
)


@pytest.mark.parametrize("name", FILES)
def test_every_packaged_paper_shrinks_to_a_valid_experiment(name: str) -> None:
    for full, small in zip(load_experiments(name), load_experiments(name, smoke=True), strict=True):
        assert small.name == f"{full.name}-smoke"
        assert small.experiments.methods == full.experiments.methods
        ratios = keep_ratios(full.experiments.spacing)
        assert keep_ratios(small.experiments.spacing) == [ratios[0], ratios[-1]][: len(ratios)]
        assert (small.training.num_epochs, small.experiments.num_nets) == (min(2, full.training.num_epochs), 1)
        assert small.retraining.start_epoch < 2


SOURCES = {  # data set -> network, training
    "MNIST": ("lenet300_100", {"file": "training/mnist/lenet.yaml"}),
    "CIFAR100": ("resnet20", {"file": "training/cifar/resnet.yaml"}),
    "ImageNet": ("resnet18", {"file": "training/imagenet/resnet.yaml"}),
    "GlueRTE": ("bert", {"file": "training/glue/bert_acc.yaml"}),
    "VOCSegmentation2012": ("deeplabv3_resnet50", {"file": "training/voc/deeplab.yaml"}),
    "ToyMoons": ("node_l2_h64_tanh", {"transformsFinal": []}),
    "Power": (
        "ffjord_l3_hm10_f5_tanh",
        {"transformsFinal": [], "loss": "NLLNatsLoss", "metricsTest": [{"type": "NLLNats"}]},
    ),
}


@pytest.mark.parametrize("dataset", SOURCES)
def test_synthetic_samples_have_the_shape_and_classes_and_pass_the_transforms(tmp_path: Path, dataset: str) -> None:
    if dataset == "GlueRTE":
        pytest.importorskip("transformers")
    row = find("dataset", f"Synthetic_{dataset}")
    name, training = SOURCES[dataset]
    network = {"name": name, "dataset": dataset}
    file = write_experiment(tmp_path, network=network, training=training, retraining={})
    (experiment,) = load_experiments(file, smoke=True)
    assert experiment.network.dataset == row.name
    folders = {"training_data": str(tmp_path), "local_data": str(tmp_path)}
    splits = load_splits(experiment.network, experiment.training, seed=0, **folders)
    test = load_test(row.name, experiment.training, **folders)
    assert splits.input_shape == row.input_shape
    x, y = splits.train.get(range(4))
    again, _ = splits.train.get(range(4))
    assert len(y) == 4
    if not isinstance(x, dict):
        assert x.shape == (4, *row.input_shape)
        assert x.equal(again)
    if row.num_classes:
        assert int(test.get(range(10))[1].max()) < row.num_classes


@pytest.mark.slow
def test_a_shrunk_experiment_runs_and_its_results_lie_apart(tmp_path: Path) -> None:
    network = {"name": "lenet300_100", "dataset": "MNIST"}
    file = write_experiment(tmp_path, network=network, experiments__numNets=3, training__numEpochs=50)
    titles = build([RunExperiment(config=str(file), smoke=True)])
    assert sum(title.startswith("TrainBase") for title in titles) == 1
    (page,) = tmp_path.rglob("Synthetic_MNIST/**/report.html")
    assert "A trial run on random samples: no number here compares the methods." in page.read_text()
    assert "prunes most" not in page.read_text()
    assert not list(tmp_path.rglob("results/MNIST"))
