"""What an experiment file becomes: includes, look-ups, retraining, defaults, sweeps, notes."""

import logging
import re

import pytest
import yaml

from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import ConfigError

TRAINING = """\
batchSize: 32
optimizer: SGD
optimizerKwargs: {lr: 0.1, momentum: 0.9}
numEpochs: 10
lrSchedulers:
  - {type: MultiStepLR, stepKwargs: {milestones: [5]}, kwargs: {gamma: 0.1}}
metricsTest:
  - {type: TopK, kwargs: {topk: 1}}
"""

EXPERIMENT = """\
network: {name: lenet5, dataset: MNIST}
training: {file: training.yaml}
experiments:
  methods: [ThresNet]
  mode: retrain
  spacing:
    - {type: manual, values: [0.5, 0.2]}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a file below a fresh working directory."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write_file("training.yaml", TRAINING)
    write_file("a.yaml", EXPERIMENT)
    return write_file


def load(name="a.yaml"):
    (experiment,) = load_experiments(name)
    return experiment


def test_defaults(write):
    experiment = load()
    assert experiment.name == "a"
    assert experiment.network.output_size == 10
    training = experiment.training
    assert (training.test_batch_size, training.early_stop_epoch, training.enable_amp) == (32, 10, True)
    settings = experiment.experiments
    assert settings.methods == ("ReferenceNet", "ThresNet")
    assert settings.dataset_test == ("MNIST",)
    assert (settings.seed, settings.rules, settings.retrain_iterations) == (0, "paper", -1)
    assert (settings.num_nets, settings.num_repetitions) == (1, 1)
    assert experiment.directories.results == "./data/results"
    assert experiment.directories.trained_networks is None
    assert experiment.coresets.delta_s == 1e-16
    assert experiment.network_names["ThresNet"] == "WT"
    assert experiment.retraining == training


def test_both_spellings_mean_the_same(write):
    write("b.yaml", "file: a.yaml\ntraining: {file: training.yaml, numEpochs: 3, enableAMP: false, testBatchSize: 7}\n")
    write(
        "c.yaml", "file: a.yaml\ntraining: {file: training.yaml, num_epochs: 3, enable_amp: no, test_batch_size: 7}\n"
    )
    camel, snake = load("b.yaml"), load("c.yaml")
    assert camel.training == snake.training
    assert (camel.training.num_epochs, camel.training.enable_amp, camel.training.test_batch_size) == (3, False, 7)


def test_spellings_match_across_an_include(write):
    write("training.yaml", TRAINING.replace("numEpochs", "num_epochs").replace("lrSchedulers", "lr_schedulers"))
    write(
        "a.yaml", EXPERIMENT.replace("{file: training.yaml}", "{file: training.yaml, numEpochs: 4, lrSchedulers: []}")
    )
    assert (load().training.num_epochs, load().training.lr_schedulers) == (4, ())


def test_a_key_beside_file_replaces_the_included_value_whole(write):
    write("a.yaml", EXPERIMENT.replace("{file: training.yaml}", "{file: training.yaml, optimizerKwargs: {lr: 0.01}}"))
    training = load().training
    assert training.optimizer_kwargs == {"lr": 0.01}
    assert training.batch_size == 32


def test_includes_at_any_level_and_within_includes(write):
    write("kwargs.yaml", "lr: 0.5\nmomentum: 0.1\n")
    write("plot.yaml", "minVal: 0.1\nmaxVal: 0.7\n")
    write("top.yaml", EXPERIMENT + "  plotting: {file: plot.yaml, max_val: 0.6}\n")
    write(
        "b.yaml", "file: top.yaml\ntraining:\n  file: training.yaml\n  optimizerKwargs: {file: kwargs.yaml, lr: 0.25}\n"
    )
    experiment = load("b.yaml")
    assert experiment.training.optimizer_kwargs == {"lr": 0.25, "momentum": 0.1}
    assert (experiment.experiments.plotting.min_val, experiment.experiments.plotting.max_val) == (0.1, 0.6)


def test_look_up_goes_from_working_directory_to_the_including_file_to_the_package(write):
    write("deep/a.yaml", EXPERIMENT)
    write("deep/training.yaml", TRAINING.replace("numEpochs: 10", "numEpochs: 11"))
    assert load("deep/a.yaml").training.num_epochs == 10
    write("deep/only_here.yaml", TRAINING.replace("numEpochs: 10", "numEpochs: 12"))
    write("deep/a.yaml", EXPERIMENT.replace("training.yaml", "only_here.yaml"))
    assert load("deep/a.yaml").training.num_epochs == 12
    write("deep/a.yaml", EXPERIMENT.replace("training.yaml", "training/mnist/lenet.yaml"))
    assert load("deep/a.yaml").training.num_epochs == 50
    assert load("sample/tiny.yaml").network.dataset == "Digits"
    write("sample/tiny.yaml", EXPERIMENT)
    assert load("sample/tiny.yaml").network.dataset == "MNIST"


@pytest.mark.parametrize(
    "name", ["src/experiment/experiment/param/training/cifar/resnet.yaml", "./training/cifar/resnet.yaml"]
)
def test_prefix_of_the_reference_is_dropped(write, name):
    write("a.yaml", EXPERIMENT.replace("training.yaml", name))
    assert load().training.num_epochs == 182


def test_paper_includes_of_the_reference_are_found(write):
    write("b.yaml", "file: paper/alds/param/imagenet/retrainlittle/common.yaml\n" + EXPERIMENT)
    with pytest.raises(
        ConfigError, match=r"paper/alds/imagenet/retrainlittle/common.yaml:7: retraining.startEpoch: .* 81"
    ):
        load("b.yaml")
    write("c.yaml", "file: b.yaml\nretraining: {startEpoch: 1}\n")
    assert load("c.yaml").retraining.start_epoch == 1


def test_retraining_is_a_copy_of_training_under_its_file_and_keys(write):
    write("retraining.yaml", "numEpochs: 20\nbatchSize: 16\nmetricsTest: [{type: F1}]\n")
    write("a.yaml", EXPERIMENT + "retraining: {file: retraining.yaml, batchSize: 8, startEpoch: 5}\n")
    experiment = load()
    retraining = experiment.retraining
    assert (retraining.num_epochs, retraining.batch_size, retraining.start_epoch) == (20, 8, 5)
    assert retraining.optimizer_kwargs == {"lr": 0.1, "momentum": 0.9}
    assert retraining.metrics_test == experiment.training.metrics_test
    assert (retraining.test_batch_size, retraining.early_stop_epoch) == (8, 20)


def test_given_kwargs_of_retraining_replace_those_of_training_whole(write):
    write("a.yaml", EXPERIMENT + "retraining: {optimizerKwargs: {lr: 0.01}}\n")
    assert load().retraining.optimizer_kwargs == {"lr": 0.01}


def test_training_start_epoch_is_ignored_with_a_warning(write, caplog):
    write("a.yaml", EXPERIMENT.replace("{file: training.yaml}", "{file: training.yaml, startEpoch: 3}"))
    experiment = load()
    assert experiment.training.start_epoch == experiment.retraining.start_epoch == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("a.yaml:2: training.startEpoch: has no effect")


@pytest.mark.parametrize("methods", ["[]", "[ReferenceNet]"])
@pytest.mark.parametrize("mode", ["train", "retrain", "cascade", "cascade-rewind"])
def test_an_experiment_that_prunes_nothing_says_so_unless_its_mode_does(write, caplog, mode, methods):
    text = re.sub(r"methods: .*", f"methods: {methods}", re.sub(r"mode: .*", f"mode: {mode}", EXPERIMENT))
    write("a.yaml", text)
    load()
    assert (f"experiments.methods: has no method, so mode '{mode}' prunes nothing" in caplog.text) == (mode != "train")


def test_other_metrics_for_retraining_are_ignored_with_a_warning(write, caplog):
    write("a.yaml", EXPERIMENT + "retraining: {metricsTest: [{type: F1}]}\n")
    assert [metric.type for metric in load().retraining.metrics_test] == ["TopK"]
    assert "a.yaml:8: retraining.metricsTest: has no effect" in caplog.text


def test_keys_of_older_files_are_ignored_with_a_note(write, caplog):
    caplog.set_level(logging.INFO)
    write(
        "b.yaml",
        EXPERIMENT + "  datasetsToEvaluate: [MNIST]\nblacklist: [methods]\ndescription: old\n"
        "coresets: {deltaS: 1e-12, deltaBest: 1.0e-5, sizeOfT: 0.1}\n",
    )
    experiment = load("b.yaml")
    assert experiment.coresets.delta_s == 1e-12
    noted = {record.getMessage().split(": ")[1] for record in caplog.records if record.levelno == logging.INFO}
    assert noted == {
        "blacklist", "description", "experiments.datasetsToEvaluate", "coresets.deltaBest", "coresets.sizeOfT"
    }  # fmt: skip
    plain = load()
    assert experiment.experiments == plain.experiments


def test_only_the_dictionaries_of_defaults_merge_key_by_key(write):
    write(
        "b.yaml",
        "file: a.yaml\ndirectories: {results: /r, trained_networks: /t}\nnetwork_names: {WT: magnitude, NetHandle: x}\n"
        "networkColors: {ThresNet: tab:blue, ALDSNet: orange}\n",
    )
    experiment = load("b.yaml")
    assert (experiment.directories.results, experiment.directories.trained_networks) == ("/r", "/t")
    assert experiment.directories.training_data == "./data/training"
    assert experiment.network_names["ThresNet"] == "magnitude"
    assert experiment.network_names["ReferenceNet"] == "Reference"
    assert experiment.network_colors["ThresNet"] == "tab:blue"
    assert experiment.network_colors["ALDSNet"] == "orange"
    assert experiment.network_colors["ReferenceNet"] == "black"


def test_methods_by_short_name_reference_first(write):
    write("a.yaml", EXPERIMENT.replace("[ThresNet]", "[FT, ReferenceNet, WT, UniNet]"))
    assert load().experiments.methods == ("ReferenceNet", "FilterThresNet", "ThresNet", "UniNet")


@pytest.mark.parametrize("given", ["FashionMNIST", "[FashionMNIST, MNIST]"])
def test_dataset_test_is_one_or_several(write, given):
    write("a.yaml", EXPERIMENT + f"  datasetTest: {given}\n")
    assert load().experiments.dataset_test == tuple(given.strip("[]").split(", "))


def test_optimizer_keywords_that_say_nothing_are_dropped_with_a_warning(write, caplog):
    training = "{file: training.yaml, optimizer: Adam, optimizerKwargs: {lr: 1e-3, nesterov: false, momentum: 0}}"
    write("a.yaml", EXPERIMENT.replace("{file: training.yaml}", training))
    assert load().training.optimizer_kwargs == {"lr": 0.001}
    assert "Adam has no keyword 'nesterov'; False is dropped" in caplog.text
    assert "Adam has no keyword 'momentum'; 0 is dropped" in caplog.text


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "'1e-4'", '"0.0001"'])
def test_numbers_in_every_notation(write, number):
    training = f"{{file: training.yaml, optimizerKwargs: {{lr: {number}}}, batchSize: 1e2, numEpochs: '7'}}"
    write("a.yaml", EXPERIMENT.replace("{file: training.yaml}", training) + f"coresets: {{deltaS: {number}}}\n")
    experiment = load()
    assert experiment.training.optimizer_kwargs["lr"] == pytest.approx(1e-4)
    assert (experiment.training.batch_size, experiment.training.num_epochs) == (100, 7)
    assert experiment.coresets.delta_s == pytest.approx(1e-4)


def test_a_normalisation_of_other_channels_is_said(write, caplog):
    write("a.yaml", EXPERIMENT.replace("training.yaml", "training/cifar/lenet5.yaml"))
    load()
    (record,) = caplog.records
    assert "training.transformsFinal[1]: normalises 3 channels, but MNIST has 1" in record.getMessage()


def test_missing_basics_of_a_training_are_said(write, caplog):
    write("training.yaml", "loss: CrossEntropyLoss\n")
    training = load().training
    assert (training.batch_size, training.optimizer) == (128, "SGD")
    for key in ("batchSize", "optimizer", "numEpochs"):
        assert f"training.{key}: is missing" in caplog.text


def test_more_than_two_metrics(write):
    metrics = "[{type: TopK, kwargs: {topk: 1}}, {type: TopK, kwargs: {topk: 3}}, {type: IoU}, {type: F1}]"
    write("a.yaml", EXPERIMENT.replace("{file: training.yaml}", f"{{file: training.yaml, metricsTest: {metrics}}}"))
    assert len(load().training.metrics_test) == 4


def test_sections_may_be_empty(write):
    write("a.yaml", EXPERIMENT + "retraining:\ndirectories:\nnetwork_names: {}\n")
    assert load().retraining == load().training


def test_mode_train_needs_no_ratios(write):
    write("a.yaml", EXPERIMENT.split("  mode")[0] + "  mode: train\n")
    assert load().experiments.spacing == ()


SWEEP = """\
file: a.yaml
customizations:
  - {key: [training, optimizerKwargs, lr], value: 0.01}
  - {key: [training, batchSize], value: 64}
  - {key: [retraining, optimizerKwargs, lr], value: 0.02}
  - {key: [retraining, start_epoch], value: 8}
  - {key: [experiments, spacing], value: [{type: manual, values: [0.3]}]}
  - {key: [directories, results], value: elsewhere}
  - {key: [training], value: {file: training.yaml, num_epochs: 2}}
"""


def test_sweep(write):
    write("sweep.yaml", SWEEP)
    members = load_experiments("sweep.yaml")
    rate, batch, retrain_rate, start, spacing, folder, training = members
    assert rate.training.optimizer_kwargs == rate.retraining.optimizer_kwargs == {"lr": 0.01, "momentum": 0.9}
    assert batch.training.batch_size == batch.retraining.batch_size == batch.retraining.test_batch_size == 64
    assert batch.training.optimizer_kwargs["lr"] == 0.1
    assert retrain_rate.training.optimizer_kwargs == {"lr": 0.1, "momentum": 0.9}
    assert retrain_rate.retraining.optimizer_kwargs == {"lr": 0.02, "momentum": 0.9}
    assert (start.training.start_epoch, start.retraining.start_epoch) == (0, 8)
    assert spacing.experiments.spacing[0].values == (0.3,)
    assert (folder.directories.results, folder.directories.local_data) == ("elsewhere", "./local")
    assert (training.training.num_epochs, training.retraining.num_epochs, training.training.batch_size) == (2, 2, 32)
    names = [member.name for member in members]
    assert names[:2] == ["sweep-training.optimizerKwargs.lr=0.01", "sweep-training.batchSize=64"]
    assert len(set(names)) == len(names)
    assert all("/" not in name and " " not in name and len(name) < 100 for name in names)


def test_sweep_of_an_included_file_is_replaced_by_ones_own(write):
    write("sweep.yaml", SWEEP)
    write("b.yaml", "file: sweep.yaml\ncustomizations: [{key: [experiments, seed], value: 5}]\n")
    assert load("b.yaml").experiments.seed == 5


def test_anchors_and_merge_keys(write):
    text = EXPERIMENT.replace("training: {file: training.yaml}", "training: &t {file: training.yaml, numEpochs: 4}")
    write("a.yaml", text + "retraining: {<<: *t, startEpoch: 2}\n")
    assert (load().retraining.num_epochs, load().retraining.start_epoch) == (4, 2)


def test_loading_twice_gives_equal_experiments(write):
    assert load() == load()
    assert yaml.safe_load(load().model_dump_json())["name"] == "a"
