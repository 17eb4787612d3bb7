"""The experiment files that the package ships, its JSON schema and its configuration reference."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from luigi_prune.compute.data import RawData, Samples
from luigi_prune.config.configuration_page import reference_markdown
from luigi_prune.config.json_schema import file_schema
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.config.loader.includes import PACKAGED, packaged_files

FILES = packaged_files()
FRAGMENTS = ("common.yaml", "training_tutorial.yaml")
TRAININGS = [name for name in FILES if name.startswith("training/") or name.endswith("training_tutorial.yaml")]
EXPERIMENTS = [name for name in FILES if name not in TRAININGS and not name.endswith(FRAGMENTS)]
NOW = {"sample/digits.yaml", "sample/tiny.yaml"}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_files_are_there():
    assert set(FILES) >= NOW
    assert len(EXPERIMENTS) > 60
    assert len(TRAININGS) > 20


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_loads(name, elsewhere):
    experiments = load_experiments(name)
    names = [experiment.name for experiment in experiments]
    assert names[0].startswith(Path(name).stem)
    assert len(set(names)) == len(experiments) > 0


def load_training(name):
    known = {"glue": "bert, dataset: GlueSST2", "voc": "deeplabv3_resnet50, dataset: VOCSegmentation2012"}
    network = known.get(Path(name).parent.name, "resnet20, dataset: CIFAR10")
    Path("experiment.yaml").write_text(
        f"network: {{name: {network}}}\ntraining: {{file: {name}}}\n"
        "experiments: {methods: [WT], mode: retrain, spacing: [{type: manual, values: [0.5]}]}\n"
    )
    (experiment,) = load_experiments("experiment.yaml")
    return experiment


@pytest.mark.parametrize("name", TRAININGS)
def test_training_loads(name, elsewhere):
    if "/glue/" in name:
        pytest.importorskip("transformers")
    experiment = load_training(name)
    given = yaml.safe_load((PACKAGED / name).read_text())
    if "numEpochs" in given:
        assert experiment.training.num_epochs == experiment.retraining.num_epochs == given["numEpochs"]
    if "batchSize" in given:
        assert experiment.training.batch_size == given["batchSize"]
    if "optimizerKwargs" in given:
        assert set(experiment.training.optimizer_kwargs) == set(given["optimizerKwargs"])


@pytest.mark.parametrize("name", FILES)
def test_files_are_ours_and_name_their_source(name):
    text = (PACKAGED / name).read_text()
    assert text.startswith("# ")
    if not name.startswith("sample/"):
        assert "# Source: " in text
    assert max(map(len, text.splitlines())) <= 120


def test_digits_is_the_experiment_that_is_promised(elsewhere):
    (experiment,) = load_experiments("sample/digits.yaml")
    assert experiment.network.dataset == "Digits"
    assert experiment.network.output_size == 10
    assert len(experiment.experiments.methods) >= 5
    assert experiment.experiments.num_nets == 2
    assert len(experiment.experiments.spacing[0].values) == 4


def test_lenet5_gets_the_padded_images_that_its_namesake_of_torchprune_needs(elsewhere):
    (experiment,) = load_experiments("paper/pfp/mnist/lenet5.yaml")
    training, retraining = experiment.training, experiment.retraining
    assert (training.num_epochs, retraining.num_epochs) == (50, 50)
    image = np.zeros((1, 28, 28), dtype=np.uint8)
    for transforms in (training.transforms_train, training.transforms_test, retraining.transforms_test):
        samples = Samples(RawData(image, np.zeros(1, dtype=np.int64)), (*transforms, *training.transforms_final))
        assert samples.input_shape == (1, 32, 32)


TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def accepts(schema, value, root):
    """Return whether a JSON schema of the subset that we print accepts a value."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], value, root)
    if "anyOf" in schema:
        return any(accepts(option, value, root) for option in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return False
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if isinstance(value, list) and "items" in schema:
        return all(accepts(schema["items"], inner, root) for inner in value)
    return not isinstance(value, dict) or accepts_keys(schema, value, root)


def accepts_keys(schema, value, root):
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, inner in value.items():
        if not accepts(schema.get("propertyNames", {}), key, root):
            return False
        if key in known:
            if not accepts(known[key], inner, root):
                return False
        elif rest is False or (isinstance(rest, dict) and not accepts(rest, inner, root)):
            return False
    return set(schema.get("required", ())) <= set(value)


@pytest.mark.parametrize("name", sorted(NOW))
def test_json_schema_accepts_the_samples(name):
    schema = file_schema()
    assert accepts(schema, yaml.safe_load((PACKAGED / name).read_text()), schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trainings": {}},
        {"network": {"name": "resnett20"}},
        {"experiments": {"methods": ["ThresNets"]}},
        {"experiments": {"mode": "cascades"}},
        {"training": {"numEpoch": 3}},
        {"training": {"num_epochs": "many"}},
        {"training": 3},
        {"training": {"lrSchedulers": [{"kwargs": {}}]}},
        {"training": {"metricsTest": [{"type": "ToTensor"}]}},
        {"customizations": [{"key": ["training"]}]},
        {"network_names": {"Thres": "x"}},
    ],
)
def test_json_schema_refuses_mistakes(wrong):
    schema = file_schema()
    assert not accepts(schema, wrong, schema)


def test_json_schema_knows_both_spellings_and_includes():
    schema = file_schema()
    both = {
        "file": "sample/tiny.yaml",
        "training": {"file": "a.yaml", "num_epochs": 3, "batchSize": 2, "optimizerKwargs": {"lr": 0.1}},
        "experiments": {"datasetTest": "MNIST", "dataset_test": ["MNIST"], "datasetsToEvaluate": []},
        "coresets": {"deltaBest": 1},
        "retraining": None,
        "network": {"name": "my_module:net", "kwargs": {"width": 3}},
        "network_names": {"WT": "magnitude", "ALDSNet": "ALDS", "my.module:ROW": "mine"},
        "customizations": [{"key": ["training", "batchSize"], "value": 4}],
    }
    assert accepts(schema, both, schema)


def test_reference_is_what_the_schema_says():
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    command = "python -m luigi_prune.config.configuration_page > docs/configuration.md"
    assert page.read_text() == reference_markdown(), f"run: {command}"
