"""The base class of all tasks of the graph: a key, a result file, and the job that writes it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakValueDictionary

import luigi
from luigi.parameter import ParameterVisibility

from luigi_prune.config.schema import Directories
from luigi_prune.errors import LuigiPruneError
from luigi_prune.execution.job import Context, Job
from luigi_prune.execution.job_run import run
from luigi_prune.identity import paths
from luigi_prune.identity.remembered import per_object
from luigi_prune.results.hdf5_file import HDF5Target
from luigi_prune.workflow.settings import FAMILIES

SHOWN_FIRST = ("method", "keep_ratio", "net", "repetition", "test_set", "experiment", "network", "dataset")

_Task = TypeVar("_Task", bound="JobTask")


# as Luigi's own cache of instances, which needs all parameters for a look
_tasks: WeakValueDictionary[tuple[Any, ...], JobTask] = WeakValueDictionary()
_compared: set[type] = set()  # families whose parameters were compared with luigi.cfg


@per_object
def _text(directories: Directories) -> str:
    return directories.model_dump_json()


def _hidden() -> Any:
    return luigi.Parameter(visibility=ParameterVisibility.HIDDEN, significant=False)


class JobTask(luigi.Task):
    """A task that writes one result by a function in `luigi_prune.jobs`, run by a backend."""

    function: str  # in luigi_prune.jobs, as module:function
    _params: ClassVar[list[tuple[str, luigi.Parameter]]]
    retry_count: int | None = None  # as in luigi.cfg; 1 after a failure that a retry cannot fix

    dataset: str = luigi.Parameter(description="Data set that the network is trained on.")
    network: str = luigi.Parameter(description="Network.")
    key: str = luigi.Parameter(description="Content key: SHA-256 of what this task computes.")
    results: str = luigi.Parameter(description="Results folder.")
    spec: str = _hidden()
    directories: str = _hidden()

    @classmethod
    def known(cls: type[_Task], content: Any, directories: Directories, **parameters: Any) -> _Task:
        """Return the task of these parameters, which need not read `content` and `directories` from their JSON."""
        place = (cls, parameters["key"], parameters["spec"], text := _text(directories))
        task = _tasks.get(place)
        if task is None:
            task = _tasks[place] = cls(directories=text, **parameters)
            task.__dict__.setdefault("content", content)
            task.__dict__.setdefault("places", directories)
        return cast(_Task, task)

    @classmethod
    def get_params(cls) -> list[tuple[str, luigi.Parameter]]:
        """Return the parameters; Luigi looks through all attributes of the class, several times per task."""
        if "_params" not in vars(cls):
            cls._params = super().get_params()
        return cls._params

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
        """Return the value of every parameter; Luigi also compares each task with luigi.cfg, here one per family."""
        if args or kwargs.keys() != {name for name, _ in params} or cls not in _compared:
            _compared.add(cls)
            values: list[tuple[str, Any]] = super().get_param_values(params, args, kwargs)
            return values
        return [(name, parameter.normalize(kwargs[name])) for name, parameter in params]

    @cached_property
    def places(self) -> Directories:
        """The experiment's directories, overridden by luigi.cfg."""
        return Directories.model_validate_json(self.directories)

    @cached_property
    def path(self) -> Path:
        """The path of the result."""
        raise NotImplementedError

    def output(self) -> HDF5Target:
        """Return the task's result file."""
        return HDF5Target(self.path)

    def complete(self) -> bool:
        """Return whether the result file exists; asked often, and Luigi would make lists of outputs each time."""
        return os.path.exists(self.path)

    def request(self) -> dict[str, Any]:
        """Return the job function's request, as JSON data."""
        return {
            "family": self.task_family,
            "key": self.key,
            "spec": self.spec,
            "directories": self.directories,
            "inputs": {name: str(task.path) for name, task in self.requires().items()},
            "output": str(self.path),
        }

    def job(self, backend: str = "") -> Job:
        """Return the job that writes the result, for the backend of this name."""
        log = paths.log_path(self.places.results, self.title, self.key)
        folder = str(paths.jobs_folder(self.places.results, backend)) if backend else ""
        return Job(self.function, self.title, self.task_family, self.request(), str(self.path), str(log), folder)

    @property
    def title(self) -> str:
        """The task's name for people."""
        raise NotImplementedError

    @cached_property
    def inputs(self) -> dict[str, JobTask]:
        """The tasks whose results this one reads, by their names in the request."""
        return {}

    def requires(self) -> dict[str, JobTask]:
        """Return the tasks whose results this one reads, by their names in the request."""
        return self.inputs

    def shown_first(self, texts: dict[str, str]) -> dict[str, str]:
        """Return the task's parameters in the order in which Luigi's page shows them, after a short key."""
        first = {name: texts[name] for name in SHOWN_FIRST if name in texts}
        return {"id": self.key[:12], **first, **texts}

    def _get_param_visibilities(self) -> dict[str, ParameterVisibility]:
        # hidden from the page only: parameters that are not public do not count as identity
        hidden = {"key": ParameterVisibility.HIDDEN, "results": ParameterVisibility.HIDDEN}
        return super()._get_param_visibilities() | hidden

    def run(self) -> None:
        """Run the job in this process; PruneWorker submits it to a backend instead."""
        outcome = run(self.job(), Context())
        if outcome.status != "done":
            raise LuigiPruneError(outcome.message)


def family_counts(families: Iterable[str]) -> str:
    """Return "1 TrainBase, 2 Prune, ...": the tasks of each family, inputs first."""
    counts = Counter(families)
    order = sorted(counts, key=lambda family: (FAMILIES.index(family) if family in FAMILIES else -1, family))
    return ", ".join(f"{counts[family]} {family}" for family in order)


def walk(*roots: luigi.Task) -> Iterator[luigi.Task]:
    """Yield `roots` and all their dependencies once, inputs first."""
    seen: set[str] = set()
    stack: list[tuple[luigi.Task, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        task, below_done = stack.pop()
        if below_done:
            yield task
        elif task.task_id not in seen:
            seen.add(task.task_id)
            stack.append((task, True))
            stack.extend((inner, False) for inner in reversed(task.deps()))


def job_tasks(*roots: luigi.Task) -> Iterator[JobTask]:
    """Yield those of `walk` that have a job."""
    return (task for task in walk(*roots) if isinstance(task, JobTask))
