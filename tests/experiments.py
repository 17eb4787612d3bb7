"""What tests need to run whole experiments: a small file, a run in this process or another, what ran, what came out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import luigi
import yaml
from luigi.event import Event

from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.results.hdf5_file import read_about, read_result
from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.settings import directories_for
from luigi_prune.workflow.tasks import Report, RunExperiment

TINY: dict[str, Any] = {
    "network": {"name": "lenet300_100", "dataset": "Digits", "outputSize": 10},
    "training": {
        "batchSize": 128,
        "transformsFinal": [{"type": "ToTensor"}],
        "loss": "CrossEntropyLoss",
        "metricsTest": [{"type": "TopK", "kwargs": {"topk": 1}}],
        "optimizer": "SGD",
        "optimizerKwargs": {"lr": 0.1, "momentum": 0.9},
        "numEpochs": 2,
        "lrSchedulers": [{"type": "MultiStepLR", "stepKwargs": {"milestones": [1]}, "kwargs": {"gamma": 0.1}}],
    },
    "retraining": {"startEpoch": 1},
    "experiments": {
        "methods": ["ThresNet"],
        "mode": "cascade",
        "numRepetitions": 1,
        "numNets": 1,
        "plotting": {"minVal": 0.02, "maxVal": 0.9},
        "spacing": [{"type": "manual", "values": [0.5, 0.2]}],
        "retrainIterations": -1,
    },
}


def write_experiment(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """Write an experiment file whose results lie in `folder/results`; `changes` are "section__key": value."""
    settings = {section: dict(values) for section, values in TINY.items()}
    settings["directories"] = {"results": str(folder / "results")}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            settings.setdefault(section, {})[key] = value
        else:
            settings[section] = value
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


PACED = """
import time
from math import prod
from pathlib import Path
from torch import nn

class Pace(nn.Module):
    def forward(self, x):
        if self.training and Path("pace").exists():
            time.sleep(float(Path("pace").read_text()))
        return x

def paced(input_shape, output_size):
    return nn.Sequential(Pace(), nn.Flatten(), nn.Linear(prod(input_shape), 32), nn.ReLU(), nn.Linear(32, output_size))
"""


def write_paced(folder: Path, pace: float = 0.0, **changes: Any) -> Path:
    """Write an experiment whose training waits `pace` seconds in every step, of which an epoch has three.

    It computes what it computes without a pace, and lasts as long on any machine, without keeping a core busy.
    """
    (folder / "pacing.py").write_text(PACED)
    if pace:
        (folder / "pace").write_text(str(pace))
    network = {"name": "pacing:paced", "dataset": "Digits", "outputSize": 10}
    return write_experiment(folder, **{"network": network, "training__batchSize": 512, **changes})


@contextmanager
def recorded() -> Iterator[list[JobTask]]:
    """Collect the JobTasks that start inside the block."""
    started: list[JobTask] = []

    def hear(task: luigi.Task) -> None:
        if isinstance(task, JobTask):
            started.append(task)

    luigi.Task.event_handler(Event.START)(hear)
    try:
        yield started
    finally:
        luigi.Task._event_callbacks[luigi.Task][Event.START].discard(hear)


def run(file: Path, pictures: bool = False) -> list[str]:
    """Run an experiment in this process and return the titles of the tasks that started; fails where the run fails.

    Without `pictures`, plots of the report are dots.
    """
    return build([RunExperiment(config=str(file))], pictures)


def run_to_tables(file: Path) -> list[str]:
    """Do the same up to the tables: most of a small experiment's time goes into its report's figures."""
    return build([report.tables for report in reports(file)])


def build(tasks: list[luigi.Task], pictures: bool = False) -> list[str]:
    """Run tasks and all that they need in this process; return the titles of those that started."""
    luigi.configuration.get_config().set("compute", "backend", "inline")
    function = Report.function if pictures else "tests.blank_pictures:report"
    with recorded() as started, patch.object(Report, "function", function):
        assert luigi.build(tasks, local_scheduler=True, log_level="WARNING")
    return [task.title for task in started]


def command(
    file: Path,
    *more: str,
    backend: str = "inline",
    local_scheduler: bool = True,
    config: str = "",
    pictures: bool = False,
    light: bool = False,
) -> subprocess.Popen[str]:
    """Start the `luigi` command on an experiment file, in its folder and in a process group of its own.

    Without `pictures`, plots of the report are dots; `light`: nothing is trained (tests/light_jobs.py).
    """
    (file.parent / "luigi.cfg").write_text(f"[compute]\nbackend={backend}\n{config}")
    module = "luigi_prune" if pictures else "tests.luigi_prune_light" if light else "tests.luigi_prune_blank"
    arguments = ["luigi", "--module", module, "RunExperiment", "--config", file.name, *more]
    if local_scheduler:
        arguments.append("--local-scheduler")
    path = [*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parents[1])]
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=file.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def reports(file: Path) -> list[Report]:
    """Return the Report tasks of an experiment file."""
    return [Report.of(experiment, directories_for(experiment)) for experiment in load_experiments(str(file))]


def contents(folder: Path) -> dict[str, str]:
    """Return the content hash of every result below `folder`, recomputed from what is read."""
    hashes = {}
    for path in sorted(folder.rglob("*.h5")):
        read_result(path)
        hashes[path.relative_to(folder).as_posix()] = read_about(path)["content_sha256"]
    return hashes
