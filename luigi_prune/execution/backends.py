"""The table of backends: built-in ones and those of installed packages (entry points `luigi_prune.backends`).

    [project.entry-points."luigi_prune.backends"]
    pbs = "my_package:PBS"        # the backend's name = import path of its BackendRow

A row consists of strings: a backend's modules are imported when it is used, another package when its row is read.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.job import Backend, ComputeSettings, most_together
from luigi_prune.execution.remote_jobs import JobPlace, RemoteJobs
from luigi_prune.execution.slots import Slots

GROUP = "luigi_prune.backends"
AUTO = "auto"  # local if several jobs fit this machine, else inline
log = logging.getLogger("luigi_prune")


@dataclass(frozen=True)
class BackendRow:
    """A backend: its name and the import paths ("module:name") of its parts."""

    name: str  # value of [compute] backend; its sections in luigi.cfg and its folder in the results are named after it
    backend: str  # subclass of Backend, called with ComputeSettings
    settings: str = ""  # function (sections, ComputeSettings) -> ComputeSettings.own; raises ConfigError
    jobs: str = ""  # subclass of RemoteJobs, called without arguments; "" if jobs end with their driver


_BUILT_IN_ROWS = (
    BackendRow("inline", "luigi_prune.execution.inline:InlineBackend"),
    BackendRow(
        "local",
        "luigi_prune.execution.local.local_backend:LocalBackend",
        jobs="luigi_prune.execution.driver_jobs:DriverJobs",  # those of inline, too
    ),
    BackendRow(
        "slurm",
        "luigi_prune.execution.slurm.slurm_backend:SlurmBackend",
        settings="luigi_prune.execution.slurm.options:from_luigi_cfg",
        jobs="luigi_prune.execution.slurm.slurm_jobs:SlurmJobs",
    ),
)
BUILT_IN = {row.name: row for row in _BUILT_IN_ROWS}


def entry_points(group: str = GROUP) -> Iterable[metadata.EntryPoint]:
    """Return the entry points of all installed packages."""
    return metadata.entry_points(group=group)


def names() -> list[str]:
    """Return the names of all backends without importing them; raises ConfigError if two share a name."""
    return [*BUILT_IN, *_foreign()]


def row(name: str) -> BackendRow:
    """Return a backend's row; raises ConfigError."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if (entry := _foreign().get(name)) is None:
        raise ConfigError(f"luigi.cfg: [compute] backend: {name!r} is not a backend{nearest(name, (AUTO, *names()))}")
    where = f"backend {name!r} of {_package(entry)} ({entry.value}) cannot be used"
    try:
        loaded = entry.load()
    except Exception as error:  # importing a foreign module can raise anything
        raise ConfigError(f"{where}: {_first_line(error)}") from error
    if not isinstance(loaded, BackendRow):
        raise ConfigError(f"{where}: expected a BackendRow, got a {type(loaded).__name__}")
    if loaded.name != name:
        raise ConfigError(f"{where}: its row is called {loaded.name!r}")
    return loaded


def backend_settings(compute: ComputeSettings, sections: Mapping[str, Mapping[str, str]]) -> Any:
    """Return the chosen backend's settings, parsed from its sections of luigi.cfg; None if it has none.

    `sections` are [<its name>] and [<its name>.<...>]: name -> key -> text. Raises ConfigError.
    """
    if compute.backend == AUTO or not (parser := row(compute.backend).settings):
        return None
    return _load(parser, compute.backend)(sections, compute)


def choose(settings: ComputeSettings) -> Backend:
    """Return the backend chosen in the settings; raises ConfigError."""
    name = settings.backend
    if name == AUTO:
        slots = Slots(settings)
        name = "local" if slots.total > 1 or slots.widest > 1 else "inline"
    backend: Backend = _load(row(name).backend, name)(settings)
    if backend.name != name:  # its folder and its sections are named after it
        backend.close()
        raise ConfigError(f"backend {name!r} cannot be used: its class is called {backend.name!r}")
    if not backend.bundles and (most := most_together(settings)) > 1:
        backend.close()
        raise ConfigError(f"luigi.cfg: [compute] together: {most}: backend {name!r} runs one training per job; use 1")
    return backend


def remote_jobs() -> list[RemoteJobs]:
    """Return the RemoteJobs of each backend whose jobs outlive their driver.

    A foreign backend that cannot be imported is skipped with a warning, so that commands work without it.
    """
    available = []
    for name in names():
        try:
            if import_path := row(name).jobs:
                available.append(_load(import_path, name)())
        except ConfigError as error:
            log.warning("%s", error)
    return available


def locate_jobs(outputs: Iterable[Path]) -> dict[Path, JobPlace]:
    """Return the places of the jobs that compute `outputs`, of all backends and drivers; finished results have none."""
    paths = list(outputs)
    return {path: place for remote in remote_jobs() for path, place in remote.where(paths).items()}


@cache
def _foreign() -> dict[str, metadata.EntryPoint]:
    by_name: dict[str, metadata.EntryPoint] = {}
    for entry in entry_points():
        first = by_name.setdefault(entry.name, entry)
        if entry.name in (*BUILT_IN, AUTO) or first.value != entry.value:
            other = "luigi_prune" if entry.name in (*BUILT_IN, AUTO) else _package(first)
            raise ConfigError(f"backend {entry.name!r} of {_package(entry)} has the name of one of {other}")
    return by_name


def _load(import_path: str, name: str) -> Any:
    module, _, attribute = import_path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a foreign module can raise anything; a library may be missing
        raise ConfigError(f"backend {name!r}: {import_path} cannot be imported: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _package(entry: metadata.EntryPoint) -> str:
    package = entry.dist
    return f"{package.name} {package.version}" if package is not None else entry.value.partition(":")[0]
