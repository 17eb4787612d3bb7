"""luigi.cfg goes over the experiment file, the packaged one lies below all, and places follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from luigi_prune import store
from luigi_prune.config.schema import Directories, NetworkConfig
from tests.experiments import write_experiment


def places(folder: Path, config: str) -> list[str]:
    """Return the directories of the tiny experiment in `folder`, and two settings, as a new process sees them."""
    (folder / "luigi.cfg").write_text(config)
    file = write_experiment(folder, directories={"results": "./from-file", "training_data": "./data-from-file"})
    code = (
        "import luigi_prune, luigi;"
        "from luigi_prune.config.load import load_experiments as load;"
        "from luigi_prune.settings import compute_settings, directories_for;"
        f"d = directories_for(load({str(file)!r})[0]);"
        "c = luigi.configuration.get_config();"
        "print(d.results, d.trained_networks, d.training_data, compute_settings().threads,"
        "c.get('retcode', 'task_failed'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return ended.stdout.split()


def test_without_a_luigi_cfg_the_file_and_the_packaged_settings_hold(tmp_path):
    assert places(tmp_path, "") == ["./from-file", "None", "./data-from-file", "1", "30"]


def test_luigi_cfg_goes_over_the_file_and_over_the_packaged_settings(tmp_path):
    config = "[directories]\nresults=/scratch/r\ntrained_networks=/shared/t\n"
    config += "[compute]\nthreads=3\n[retcode]\ntask_failed=7\n"
    assert places(tmp_path, config) == ["/scratch/r", "/shared/t", "./data-from-file", "3", "7"]


def test_trained_networks_lie_where_they_are_named_and_else_below_the_results():
    from luigi_prune.keys import train_key
    from luigi_prune.spec import base_specs
    from tests.test_spec import experiment

    spec = base_specs(experiment())[0]
    key = train_key(spec)
    named = Directories(results="/r", trained_networks="/t")
    assert store.trained_path(Directories(results="/r"), spec, key).is_relative_to("/r")
    assert store.trained_path(named, spec, key) == Path(f"/t/Digits/lenet300_100/TrainBase/net0-{key[:12]}.h5")


def test_tensorboard_folders_tell_runs_apart_wherever_they_lie():
    network = NetworkConfig(name="resnet20", dataset="CIFAR10", output_size=10)
    directories = Directories(results="/home/resnet20/results")
    run = Path("/t/CIFAR10/resnet20/ThresNet/net0-rep0/keep0.5-retrain-ab.h5")
    folder = store.tensorboard_folder(directories, network, run)
    assert folder == Path("/home/resnet20/results/CIFAR10/resnet20/tensorboard/ThresNet-net0-rep0-keep0.5-retrain-ab")
