"""luigi.cfg goes over the experiment file, the packaged one lies below all, and places follow."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import luigi.configuration
import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser

from luigi_prune.config.schema import Directories, NetworkConfig
from luigi_prune.errors import ConfigError
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.identity import paths
from luigi_prune.workflow.settings import EXIT_CONFIGURATION, allow_partial, check_writable, compute_settings
from luigi_prune.workflow.tasks import RunExperiment
from tests.experiments import write_experiment


@pytest.mark.parametrize("flag", ["--config", "--RunExperiment-config"])
def test_an_empty_name_of_the_experiment_file_is_refused_instead_of_running_the_default(flag, capsys):
    arguments = ["--module", "luigi_prune", "RunExperiment", flag, ""]
    with CmdlineParser.global_instance(arguments) as parser, pytest.raises(SystemExit):
        parser.get_task_obj().requires()
    assert capsys.readouterr().err == "error: config: expected a file name, got ''\n"


def places(folder: Path, config: str) -> list[str]:
    """Return the directories of the tiny experiment in `folder`, and two settings, as a new process sees them."""
    (folder / "luigi.cfg").write_text(config)
    file = write_experiment(folder, directories={"results": "./from-file", "training_data": "./data-from-file"})
    code = (
        "import luigi_prune, luigi;"
        "from luigi_prune.config.loader.experiment_files import load_experiments as load;"
        "from luigi_prune.workflow.settings import compute_settings, directories_for;"
        f"d = directories_for(load({str(file)!r})[0]);"
        "c = luigi.configuration.get_config();"
        "print(d.results, d.trained_networks, d.training_data, compute_settings().threads,"
        "c.get('retcode', 'task_failed'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return ended.stdout.split()


def test_without_a_luigi_cfg_the_file_and_the_packaged_settings_hold(tmp_path):
    assert places(tmp_path, "") == [str(tmp_path / "from-file"), "None", str(tmp_path / "data-from-file"), "1", "30"]


def test_luigi_cfg_goes_over_the_file_and_over_the_packaged_settings(tmp_path):
    config = "[directories]\nresults=/scratch/r\ntrained_networks=/shared/t\n"
    config += "[compute]\nthreads=3\n[retcode]\ntask_failed=7\n"
    assert places(tmp_path, config) == ["/scratch/r", "/shared/t", str(tmp_path / "data-from-file"), "3", "7"]


def test_trained_networks_lie_where_they_are_named_and_else_below_the_results():
    from luigi_prune.identity.keys import train_key
    from luigi_prune.identity.spec import base_specs
    from tests.identity.test_keys import experiment

    spec = base_specs(experiment())[0]
    key = train_key(spec)
    named = Directories(results="/r", trained_networks="/t")
    assert paths.trained_path(Directories(results="/r"), spec, key).is_relative_to("/r")
    assert paths.trained_path(named, spec, key) == Path(f"/t/Digits/lenet300_100/TrainBase/net0-{key[:12]}.h5")


def test_tensorboard_folders_tell_runs_apart_wherever_they_lie():
    network = NetworkConfig(name="resnet20", dataset="CIFAR10", output_size=10)
    directories = Directories(results="/home/resnet20/results")
    run = Path("/t/CIFAR10/resnet20/ThresNet/net0-rep0/keep0.5-retrain-ab.h5")
    folder = paths.tensorboard_folder(directories, network, run)
    assert folder == Path("/home/resnet20/results/CIFAR10/resnet20/tensorboard/ThresNet-net0-rep0-keep0.5-retrain-ab")


@pytest.fixture
def luigi_cfg(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ComputeSettings]:
    """Return a function that reads a luigi.cfg's [compute] and what belongs to it."""

    def read(config: str) -> ComputeSettings:
        parser = LuigiConfigParser()
        parser.read_string(config)
        monkeypatch.setattr(luigi.configuration, "get_config", lambda: parser)
        return compute_settings()

    return read


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", {"TrainBase": 1, "Retrain": 1}),
        ("[compute]\nprocesses=gpus\n", {"TrainBase": "gpus", "Retrain": "gpus"}),
        ("[compute.TrainBase]\nprocesses=gpus\n", {"TrainBase": "gpus", "Retrain": 1}),
        ("[compute]\nprocesses=gpus\n[compute.Retrain]\nprocesses=2\n", {"TrainBase": "gpus", "Retrain": 2}),
    ],
)
def test_processes_are_a_number_or_all_gpus(luigi_cfg, config, expected):
    assert luigi_cfg(config).processes == expected


@pytest.mark.parametrize(
    ("config", "start", "words"),
    [
        ("[compute]\nprocesses=gpu\n", "[compute] processes: 'gpu'", "at least 1 or gpus"),
        ("[compute.TrainBase]\nprocesses=0\n", "[compute.TrainBase] processes: '0'", "at least 1 or gpus"),
        (
            "[compute.Prune]\nprocesses=gpus\n",
            "[compute.Prune] processes",
            "processes and together of TrainBase and Retrain",
        ),
        ("[compute]\nthreads=gpus\n", "[compute] threads: 'gpus'", "whole number of at least 1"),
        ("[compute]\nbackend=slrum\n", "[compute] backend: 'slrum'", "did you mean 'slurm'?"),
        (
            "[compute]\nbackend=slurm\n[compute.TrainBase]\nprocesses=gpus\n",
            "[compute.TrainBase] processes: gpus",
            "use gpus_per_node (a process per GPU)",
        ),
        ("[compute]\nbackend=slurm\nprocesses=2\n", "[compute.TrainBase] processes: 2", "processes_per_node"),
        ("[compute.Retrain]\ntogether=0\n", "[compute.Retrain] together: '0'", "whole number of at least 1"),
        ("[compute.Prune]\ntogether=2\n", "[compute.Prune] together", "of TrainBase and Retrain"),
        ("[compute]\ntogether=16\nprocesses=gpus\n", "[compute] together: 16", "[compute] processes is gpus; set one"),
        (
            "[compute]\nprocesses=2\n[compute.Retrain]\ntogether=4\n",
            "[compute.Retrain] together: 4 trainings share one process",
            "[compute] processes is 2",
        ),
        (
            "[compute]\nbackend=slurm\n[compute.Retrain]\ntogether=4\n[slurm.Retrain]\ngpus_per_node=2\n",
            "[compute] together: 4 trainings share one process",
            "a Retrain of [slurm] has 2",
        ),
        ("[compute]\nbackend=slurm\njobs_per_gpu=4\n", "[compute] jobs_per_gpu: 4", "together"),
    ],
)
def test_errors_of_compute_name_section_key_and_cure(luigi_cfg, config, start, words):
    with pytest.raises(ConfigError) as caught:
        luigi_cfg(config)
    assert str(caught.value).startswith(f"luigi.cfg: {start}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trainings_share_a_process_by_family(luigi_cfg):
    assert luigi_cfg("").together == {"TrainBase": 1, "Retrain": 1}
    settings = luigi_cfg("[compute]\ntogether=16\n[compute.TrainBase]\ntogether=1\nprocesses=2\n")
    assert settings.together == {"TrainBase": 1, "Retrain": 16}
    assert settings.processes == {"TrainBase": 2, "Retrain": 1}


def test_sections_of_other_backends_are_not_read(luigi_cfg):
    config = "[slurm]\nnodes=few\n[compute]\nbackend="
    assert luigi_cfg(config + "local\n").own is None
    with pytest.raises(ConfigError, match="nodes"):
        luigi_cfg(config + "slurm\n")


def test_tasks_of_two_working_directories_differ_although_their_files_are_equal(tmp_path, monkeypatch):
    ids = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        file = write_experiment(tmp_path / name, directories={"results": "./results"})
        root = RunExperiment(config=str(file.relative_to(tmp_path / name)))
        root.reload_config()
        ids.append({root.task_id, *(task.task_id for report in root.reports for task in (report, report.tables))})
    assert not ids[0] & ids[1]


def test_a_results_folder_that_cannot_be_written_ends_the_run_with_one_line(tmp_path, capsys):
    check_writable(tmp_path / "new" / "results")
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        check_writable(tmp_path / "file" / "results")
    assert ended.value.code == EXIT_CONFIGURATION
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"error: directories.results: cannot write to \S+/file/results: .+ \([\d,.]+ MiB are free\)\n", line
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("allow_partial", "yes", "expected true or false, got 'yes'"), ("allow_parts", "true", "unknown key")],
)
def test_the_section_report_is_checked(key, value, words):
    config = luigi.configuration.get_config()
    before = dict(config.items("report"))
    assert allow_partial() is False
    config.set("report", key, value)
    try:
        with pytest.raises(ConfigError, match=words):
            allow_partial()
    finally:
        config.remove_option("report", key)
        for name, text in before.items():
            config.set("report", name, text)
