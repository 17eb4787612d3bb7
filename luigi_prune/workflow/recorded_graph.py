"""The tasks of an experiment, as drivers record them in its results folder."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Any

from luigi_prune.identity import paths
from luigi_prune.identity.spec import shown_methods
from luigi_prune.registry import plain
from luigi_prune.results.run_records import RecordedExperiment, RecordedTask, experiment_path, write_record
from luigi_prune.workflow.job_task import JobTask, job_tasks
from luigi_prune.workflow.tasks import ChainTask, Report, RunExperiment, TrainBase

log = logging.getLogger(__name__)
_DISPLAY = {"network_names", "network_colors"}


def command_of(experiment: RunExperiment) -> str:
    """Return the command line that runs a file's experiments again."""
    arguments = ["luigi", "--module", "luigi_prune", "RunExperiment", "--config", experiment.config]
    smoke = ["--smoke"] if experiment.smoke else []
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join([*arguments, *smoke])}"


def write_experiments(experiments: list[RunExperiment]) -> None:
    """Write the record of every experiment that has none."""
    for report, experiment in [(report, one) for one in experiments for report in one.reports]:
        path = experiment_path(report.results, report.experiment, report.key)
        try:
            if not path.exists():
                write_record(path, recorded_experiment(report, experiment))
        except Exception:  # the page shows less; the run goes on
            log.exception("%s could not be written", path)


def recorded_experiment(report: Report, experiment: RunExperiment) -> RecordedExperiment:
    """Return the record of a report's experiment with all its tasks."""
    places: dict[str, int] = {}
    tasks: list[RecordedTask] = []
    for task in job_tasks(report):
        places[task.task_id] = len(tasks)
        tasks.append(_recorded_task(task, tuple(places[inner.task_id] for inner in task.requires().values())))
    labels, _ = shown_methods(report.content)
    return RecordedExperiment(
        name=report.experiment,
        key=report.key,
        dataset=report.dataset,
        network=report.network,
        labels={plain(method): label for method, label in labels.items()},  # as tasks name them
        keep_ratios=report.grid.keep_ratios,
        command=command_of(experiment),
        config=experiment.config,
        folder=os.getcwd(),
        smoke=experiment.smoke,
        settings=report.content.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_DISPLAY),
        tasks=tuple(tasks),
    )


def _recorded_task(task: JobTask, inputs: tuple[int, ...]) -> RecordedTask:
    results = Path(task.places.results)
    curves = ""
    if isinstance(task, TrainBase | ChainTask) and task.task_family in ("TrainBase", "Retrain"):
        spec = task.content if isinstance(task, TrainBase) else task.content.base
        curves = _relative(paths.tensorboard_folder(task.places, spec.network, task.path), results)
    more: dict[str, Any] = {
        name: getattr(task, name)
        for name in ("method", "keep_ratio", "net", "repetition", "test_set")
        if hasattr(task, name)
    }
    log_file = _relative(paths.log_path(results, task.title, task.key), results)
    return RecordedTask(
        family=task.task_family,
        key=task.key,
        title=task.title,
        path=_relative(task.path, results),
        log=log_file,
        curves=curves,
        inputs=inputs,
        **more,
    )


def _relative(path: Path, results: Path) -> str:
    return str(path.relative_to(results) if path.is_relative_to(results) else path)
