"""The graph: TrainBase -> Prune -> Retrain -> Evaluate -> Aggregate -> Report -> RunExperiment.

A task's identity is its `key` (see `identity/keys.py`) and its results folder; the other visible parameters are for
people. `spec` and `directories` are JSON and hidden: the key is a hash of the spec, the directories are not hashed.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import luigi

from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.config.schema import Directories, Experiment
from luigi_prune.errors import LuigiPruneError
from luigi_prune.identity import keys, paths
from luigi_prune.identity.spec import (
    REFERENCE,
    ChainSpec,
    EvaluateSpec,
    ExperimentSpec,
    TrainSpec,
    evaluations,
    experiment_spec,
)
from luigi_prune.registry import METHODS, plain
from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.settings import directories_for, empty_on_command_line, exit_with_error


class TrainBase(JobTask):
    """Trains one network; `net` is its index in the experiment."""

    net: int = luigi.IntParameter()
    function = "luigi_prune.jobs.train_base_job:train_base"

    @cached_property
    def content(self) -> TrainSpec:
        return TrainSpec.model_validate_json(self.spec)

    @cached_property
    def path(self) -> Path:
        return paths.trained_path(self.places, self.content, self.key)

    @property
    def title(self) -> str:
        return f"TrainBase {self.dataset} {self.network} net{self.net}"

    @classmethod
    def of(cls, spec: TrainSpec, directories: Directories) -> TrainBase:
        """Return the task that trains `spec`."""
        return cls.known(
            spec,
            directories,
            dataset=plain(spec.network.dataset),
            network=plain(spec.network.name),
            net=spec.net,
            key=keys.train_key(spec),
            results=directories.trained_networks or directories.results,
            spec=spec.as_json(),
        )


class NetworkTask(JobTask):
    """Base of Prune, Retrain and Evaluate: parameters that identify a network for people."""

    method: str = luigi.Parameter()
    keep_ratio: float = luigi.FloatParameter()
    net: int = luigi.IntParameter()
    repetition: int = luigi.IntParameter()


class ChainTask(NetworkTask):
    """Base of Prune and Retrain: one step of a chain."""

    @cached_property
    def content(self) -> ChainSpec:
        return ChainSpec.model_validate_json(self.spec)

    @cached_property
    def path(self) -> Path:
        return paths.chain_path(self.places, self.content, self.key)

    @property
    def title(self) -> str:
        ratio = f"keep {self.keep_ratio:.4g}"
        return f"{self.task_family} {self.network} {self.method} {ratio} net{self.net} rep{self.repetition}"

    @classmethod
    def of(cls, spec: ChainSpec, directories: Directories) -> ChainTask:
        """Return the task that computes the network after the last step of `spec`."""
        family = Retrain if spec.steps[-1].retrained else Prune
        return family.known(
            spec,
            directories,
            dataset=plain(spec.base.network.dataset),
            network=plain(spec.base.network.name),
            method=plain(spec.method),
            keep_ratio=spec.keep_ratio,
            net=spec.base.net,
            repetition=spec.repetition,
            key=keys.chain_key(spec),
            results=directories.results,
            spec=spec.as_json(),
        )


class Prune(ChainTask):
    """Prunes the network of the previous step, or the trained one."""

    function = "luigi_prune.jobs.prune_job:prune"

    @cached_property
    def inputs(self) -> dict[str, JobTask]:
        """The previous step, and the trained network if the method prunes that one at every step."""
        base, before = TrainBase.of(self.content.base, self.places), self.content.before()
        if before is None:
            return {"network": base}
        inputs: dict[str, JobTask] = {"network": ChainTask.of(before, self.places)}
        if METHODS[self.content.method].from_original:
            inputs["base"] = base
        return inputs


class Retrain(ChainTask):
    """Retrains a pruned network; pruned entries stay zero."""

    function = "luigi_prune.jobs.retrain_job:retrain"

    @cached_property
    def inputs(self) -> dict[str, JobTask]:
        """The pruned network, and the trained one if weights are rewound."""
        inputs: dict[str, JobTask] = {"network": ChainTask.of(self.content.pruned(), self.places)}
        if self.content.rewind:
            inputs["base"] = TrainBase.of(self.content.base, self.places)
        return inputs


class Evaluate(NetworkTask):
    """Evaluates one network on one test set."""

    test_set: str = luigi.Parameter()
    function = "luigi_prune.jobs.evaluate_job:evaluate"

    @cached_property
    def content(self) -> EvaluateSpec:
        return EvaluateSpec.model_validate_json(self.spec)

    @cached_property
    def path(self) -> Path:
        return paths.evaluate_path(self.places, self.content, self.key)

    @property
    def title(self) -> str:
        pruned = f"{self.method} keep {self.keep_ratio:.4g} " if self.method != REFERENCE else ""
        return f"Evaluate {self.network} {pruned}net{self.net} rep{self.repetition} on {self.test_set}"

    @cached_property
    def inputs(self) -> dict[str, JobTask]:
        """The network."""
        chain = self.content.chain
        if chain is None:
            return {"network": TrainBase.of(self.content.base, self.places)}
        return {"network": ChainTask.of(chain, self.places)}

    @classmethod
    def of(cls, spec: EvaluateSpec, directories: Directories) -> Evaluate:
        """Return the task of this evaluation."""
        chain = spec.chain
        return cls.known(
            spec,
            directories,
            dataset=plain(spec.base.network.dataset),
            network=plain(spec.base.network.name),
            method=plain(chain.method) if chain else REFERENCE,
            keep_ratio=chain.keep_ratio if chain else 1.0,
            net=spec.base.net,
            repetition=chain.repetition if chain else 0,
            test_set=plain(spec.test_set),
            key=keys.evaluate_key(spec),
            results=directories.results,
            spec=spec.as_json(),
        )


class ExperimentTask(JobTask):
    """Base of Aggregate and Report: tasks of one experiment, with the experiment as their spec."""

    experiment: str = luigi.Parameter()

    @cached_property
    def content(self) -> Experiment:
        return Experiment.model_validate_json(self.spec)

    @cached_property
    def grid(self) -> ExperimentSpec:
        """The experiment's axes."""
        return experiment_spec(self.content)

    @property
    def title(self) -> str:
        return f"{self.task_family} {self.experiment}"

    @classmethod
    def of(cls, experiment: Experiment, directories: Directories) -> Any:
        """Return the task of this family for an experiment."""
        return cls.known(
            experiment,
            directories,
            experiment=experiment.name,
            dataset=plain(experiment.network.dataset),
            network=plain(experiment.network.name),
            key=cls.key_of(experiment),
            results=directories.results,
            spec=experiment.model_dump_json(),
        )

    @classmethod
    def key_of(cls, experiment: Experiment) -> str:
        """Return the content key of the task of this family for an experiment."""
        raise NotImplementedError


class Aggregate(ExperimentTask):
    """Collects all evaluations of an experiment into tables."""

    function = "luigi_prune.jobs.aggregate_job:aggregate"

    @classmethod
    def key_of(cls, experiment: Experiment) -> str:
        """Return the key, a hash of the axes and the keys of all evaluations."""
        return keys.aggregate_key(experiment)

    @cached_property
    def path(self) -> Path:
        return paths.aggregate_path(self.places, self.grid, self.key)

    @cached_property
    def evaluations(self) -> dict[str, Evaluate]:
        """The evaluation of every cell of the grid, by "test set/net/ratio/repetition/method"."""
        return {
            "/".join(map(str, cell)): Evaluate.of(spec, self.places) for cell, spec in evaluations(self.content).items()
        }

    @cached_property
    def inputs(self) -> dict[str, JobTask]:
        """Every distinct evaluation of the grid."""
        return {task.key: task for task in self.evaluations.values()}

    def request(self) -> dict[str, Any]:
        """Return the job function's request: the axes, and the result path of every cell."""
        cells = {cell: str(task.path) for cell, task in self.evaluations.items()}
        return super().request() | {"spec": self.grid.as_json(), "cells": cells}


class Report(ExperimentTask):
    """Writes the report on the tables: plots, Markdown, HTML page, `.npz`, TensorBoard."""

    function = "luigi_prune.jobs.report_job:report"

    @classmethod
    def key_of(cls, experiment: Experiment) -> str:
        """Return the key, a hash of the tables' key and the display settings."""
        return keys.report_key(experiment)

    @cached_property
    def tables(self) -> Aggregate:
        """The task of the tables; cached, as its key needs the whole grid."""
        task: Aggregate = Aggregate.of(self.content, self.places)
        return task

    @cached_property
    def path(self) -> Path:
        return paths.report_folder(self.tables.path, self.key) / "report.html"

    @cached_property
    def inputs(self) -> dict[str, JobTask]:
        """The tables."""
        return {"tables": self.tables}


class RunExperiment(luigi.WrapperTask):
    """Runs every experiment of a configuration file to its report."""

    config: str = luigi.Parameter(
        description="Experiment file: in the working directory, else in the packaged configs/."
    )

    smoke: bool = luigi.BoolParameter(
        default=False, description="Shrink the experiment to minutes: two epochs and ratios, synthetic data."
    )

    @cached_property
    def reports(self) -> list[Report]:
        """The report of every sweep member of the file; a configuration error ends the run with one line."""
        try:
            config = "" if empty_on_command_line("RunExperiment", "config") else self.config
            experiments = load_experiments(config, self.smoke)
            return [Report.of(experiment, directories_for(experiment)) for experiment in experiments]
        except LuigiPruneError as error:
            exit_with_error(error)

    def requires(self) -> list[Report]:
        """Return the reports."""
        return self.reports

    def reload_config(self) -> None:
        """Read the file again, and change the task id if its experiments have changed.

        Luigi caches task instances, and luigid ignores for some seconds that a task marked as done no longer is.
        """
        self.__dict__.pop("reports", None)
        reports = self.reports
        identity = {"config": self.config, "reports": " ".join(report.key for report in reports)}
        identity["results"] = " ".join(dict.fromkeys(report.results for report in reports))
        self.task_id = luigi.task.task_id_str(self.task_family, identity)
